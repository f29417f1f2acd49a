"""The mesh facts as they are published: from what the cluster says and the operator adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

VERSION = 1
XDS_PORT = 15012  # istiod's, by TLS

# What a VM decides for itself, or vmoor renders from other facts.
_OWN_CONFIG = (
    "binaryPath",
    "configPath",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "discoveryAddress",
    "holdApplicationUntilProxyStarts",
    "image",
    "meshId",
    "proxyBootstrapTemplatePath",
    "serviceCluster",
)


@dataclass(frozen=True)
class Cluster:
    """What was read of the cluster."""

    server: str
    ca: str  # PEM
    mesh: Mapping[str, Any]  # MeshConfig
    values: Mapping[str, Any]  # of the sidecar injector; {} when there is none
    root_ca: str  # PEM
    discovery: Sequence[str]


class Wishes(NamedTuple):
    """What the operator said; empty = as the cluster says."""

    istio_namespace: str = "istio-system"
    revision: str = ""
    server: Sequence[str] = ()
    discovery: Sequence[str] = ()
    san: str = ""
    vault_mount: str = "kubernetes"


def document(cluster: Cluster, wishes: Wishes) -> Mapping[str, Any]:
    """The keys are the contract with the agents (docs/mesh-facts.md)."""
    default = _mapping(cluster.mesh.get("defaultConfig"))
    settings = _mapping(cluster.values.get("global"))
    clusters = _mapping(settings.get("multiCluster"))
    return {
        "version": VERSION,
        "kubernetes": {
            "server": list(wishes.server) or [cluster.server],
            "ca": cluster.ca,
            "vault_mount": wishes.vault_mount,
        },
        "istio": {
            "discovery": list(wishes.discovery) or list(cluster.discovery),
            "san": wishes.san or f"{istiod(wishes.revision)}.{wishes.istio_namespace}.svc",
            "root_ca": cluster.root_ca,
            "revision": wishes.revision,
            "mesh_id": str(default.get("meshId") or settings.get("meshID") or ""),
            "cluster": str(clusters.get("clusterName") or "Kubernetes"),
            "network": str(settings.get("network") or ""),
            "trust_domain": str(cluster.mesh.get("trustDomain") or "cluster.local"),
            "proxy_config": {k: v for k, v in default.items() if k not in _OWN_CONFIG},
        },
    }


def istiod(revision: str) -> str:
    """The Service's name."""
    return f"istiod-{revision}" if revision else "istiod"


def addresses(service: Optional[Mapping[str, Any]]) -> Sequence[str]:
    """HOST:PORT at which a Service's load balancer offers istiod; none is known without one."""
    if not service:
        return ()
    ports = [
        port["port"]
        for port in service["spec"].get("ports", ())
        if XDS_PORT in (port["port"], port.get("targetPort"))
    ]
    status = _mapping(_mapping(service.get("status")).get("loadBalancer"))
    hosts = [i.get("ip") or i.get("hostname") for i in status.get("ingress") or ()]
    return [f"[{h}]:{p}" if ":" in h else f"{h}:{p}" for h in hosts if h for p in ports[:1]]


def drift(want: Mapping[str, Any], have: Mapping[str, Any], at: str = "") -> Sequence[str]:
    """A line for each fact that is not published as it should be."""
    lines: list[str] = []
    for key in sorted({*want, *have}):
        name, new, old = f"{at}{key}", want.get(key), have.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            lines += drift(new, old, f"{name}.")
        elif new != old:
            lines.append(f"{name}: published {_short(old)}, should be {_short(new)}")
    return lines


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value) or "empty"
    # Certificates begin alike; their ends differ.
    return f"{len(text)} characters, …{text[-44:].split()[0]}" if "-----BEGIN" in text else text


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
