"""istiod, with its own certificate authority, and with the mesh's policy of STRICT mTLS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

import yaml

from tests.rig.apiserver import ApiServer
from tests.rig.ground import Ground
from tests.rig.network import ADDRESS
from tests.rig.process import Process, wait_until

NAMESPACE = "istio-system"
DEFAULT_MESH_CONFIG: Mapping[str, Any] = {
    "accessLogFile": "/dev/stdout",  # as in Istio's demo profile: a trap for proxies under systemd
    "outboundTrafficPolicy": {"mode": "ALLOW_ANY"},
    "trustDomain": "cluster.local",
}
_STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": NAMESPACE},
    "spec": {"mtls": {"mode": "STRICT"}},
}
_METRICS = f"http://{ADDRESS}:15014/metrics"
_COUNTERS = ("pilot_xds_pushes", "pilot_push_triggers", "pilot_inbound_updates")


@dataclass(frozen=True)
class Istiod:
    process: Process
    discovery: str  # host:port, TLS
    san: str
    root_ca: str  # PEM
    ground: Ground

    def pushes(self) -> dict[str, float]:
        """What istiod has counted so far: {'pilot_xds_pushes{type="eds"}': 12.0, ...}."""
        lines = self.ground.request("GET", _METRICS).text.splitlines()
        counted = [line.rpartition(" ") for line in lines if line.startswith(_COUNTERS)]
        return {name: float(value) for name, _, value in counted}


def start(
    ground: Ground, kube: ApiServer, kubectl: Callable[..., str], mesh_config: Mapping[str, Any]
) -> Istiod:
    """mesh_config replaces the default's keys one by one."""
    folder = ground.folder("istiod")
    (folder / "no-root").mkdir()
    mesh = folder / "mesh.yaml"
    mesh.write_text(yaml.safe_dump({**DEFAULT_MESH_CONFIG, **mesh_config}))
    kubectl("create", "namespace", NAMESPACE)
    kubectl("create", "-f", str(ground.binaries.crds))
    wait_until(lambda: _established(kubectl), 30, "the CRDs")
    env = {
        "POD_NAME": "istiod-0",
        "POD_NAMESPACE": NAMESPACE,
        "CLUSTER_ID": "Kubernetes",
        "ROOT_CA_DIR": str(folder / "no-root"),
        "INJECT_ENABLED": "false",
        "VALIDATION_WEBHOOK_CONFIG_NAME": "",
        "INJECTION_WEBHOOK_CONFIG_NAME": "",
        "ISTIOD_CUSTOM_HOST": "istiod.rig",
        "PILOT_ENABLE_GATEWAY_API": "false",
        # These two need filters that only Istio's own build of Envoy has.
        "PILOT_ENABLE_METADATA_EXCHANGE": "false",
        "PILOT_ENABLE_ALPN_FILTER": "false",
    }
    argv = [
        str(ground.binaries.istiod), "discovery",
        f"--kubeconfig={kube.kubeconfig}", f"--meshConfig={mesh}",
        f"--namespace={NAMESPACE}", "--clusterID=Kubernetes",
        "--httpAddr=:8080", "--httpsAddr=:15017", "--grpcAddr=:15010",
        "--secureGRPCAddr=:15012", "--monitoringAddr=:15014",
    ]  # fmt: skip
    process = ground.spawn("istiod", argv, env=env)
    process.wait_until(lambda: ground.answers(f"http://{ADDRESS}:8080/ready"), 60, "ready")
    kubectl("create", "-f", "-", input=json.dumps(_STRICT))
    find_root = ["get", "configmap", "-n", NAMESPACE, "istio-ca-root-cert", "--ignore-not-found"]
    root_ca = process.wait_until(
        lambda: kubectl(*find_root, "-o", r"jsonpath={.data.root-cert\.pem}"), 20, "its root"
    )
    return Istiod(process, f"{ADDRESS}:15012", f"istiod.{NAMESPACE}.svc", root_ca, ground)


def _established(kubectl: Callable[..., str]) -> bool:
    """`kubectl wait` fails where the server has not written any condition yet."""
    crds = json.loads(kubectl("get", "crd", "-o", "json"))["items"]
    return all(
        any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        for conditions in (crd.get("status", {}).get("conditions") or () for crd in crds)
    )
