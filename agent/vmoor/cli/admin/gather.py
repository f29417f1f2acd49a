"""What the cluster says about its mesh, read by kubectl as istioctl would read it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import yaml

from vmoor.adapters.kubectl import Kubectl
from vmoor.errors import LocalFault
from vmoor.model import published
from vmoor.model.published import Cluster, Wishes

ROOT_CA = "istio-ca-root-cert"
EAST_WEST = "istio-eastwestgateway"
_ITSELF = ("localhost", "::1")


def gather(kubectl: Kubectl, wishes: Wishes) -> Cluster:
    """Raises LocalFault with the option that helps, when the cluster does not say it."""
    cluster = kubectl.cluster()
    mesh = _key(kubectl, wishes, _revised("istio", wishes), "mesh")
    injector = kubectl.get(
        "configmap", _revised("istio-sidecar-injector", wishes), wishes.istio_namespace
    )
    values = (injector or {}).get("data", {}).get("values") or "{}"
    return Cluster(
        server="" if wishes.server else _server(cluster),
        ca=_ca(kubectl, cluster, wishes),
        mesh=yaml.safe_load(mesh) or {},
        values=json.loads(values),
        root_ca=_key(kubectl, wishes, ROOT_CA, "root-cert.pem"),
        discovery=() if wishes.discovery else _discovery(kubectl, wishes),
    )


def _revised(name: str, wishes: Wishes) -> str:
    return f"{name}-{wishes.revision}" if wishes.revision else name


def _key(kubectl: Kubectl, wishes: Wishes, name: str, key: str) -> str:
    found = kubectl.get("configmap", name, wishes.istio_namespace)
    text = str((found or {}).get("data", {}).get(key) or "")
    if not text:
        raise LocalFault(
            f"cannot find {key} in ConfigMap {wishes.istio_namespace}/{name}",
            remedy="say where istiod is: --istio-namespace, --revision, --context",
        )
    return text


def _server(cluster: Mapping[str, Any]) -> str:
    server = str(cluster["server"])
    host = urlsplit(server).hostname or ""
    if host in _ITSELF or host.startswith("127."):
        raise LocalFault(
            f"cannot publish the kubeconfig's {server}: VMs would call themselves",
            remedy="name the API server as VMs reach it: --server URL",
        )
    return server


def _ca(kubectl: Kubectl, cluster: Mapping[str, Any], wishes: Wishes) -> str:
    inline = cluster.get("certificate-authority-data")
    if inline:
        return base64.b64decode(inline).decode()
    # Such a kubeconfig trusts the system's roots; Kubernetes publishes its own root everywhere.
    return _key(kubectl, wishes, "kube-root-ca.crt", "ca.crt")


def _discovery(kubectl: Kubectl, wishes: Wishes) -> Sequence[str]:
    for name in (EAST_WEST, published.istiod(wishes.revision)):
        found = published.addresses(kubectl.get("service", name, wishes.istio_namespace))
        if found:
            return found
    raise LocalFault(
        f"cannot tell how VMs reach istiod: no load balancer of {EAST_WEST} or "
        f"{published.istiod(wishes.revision)} offers port {published.XDS_PORT}",
        remedy="--discovery HOST:PORT",
    )
