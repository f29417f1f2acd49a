"""Istio's own way for a VM: WorkloadGroup, auto-registration, istio.service.

The files are those that `istioctl x workload entry configure --autoregister` makes, at the places
where Istio's documentation puts them; the capture rules, which Istio's istio-start.sh sets before
it starts pilot-agent, are set by a drop-in. CLOUD_PLATFORM=none saves it the search for a cloud.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from tests.mesh_setup import ACCOUNT, NAMESPACE
from tests.rig.machine import Machine
from tests.rig.network import ADDRESS
from tests.rig.rig import Rig

GROUP = "istio-web"
HOST = f"{GROUP}.shop.mesh"
UNIT = "istio.service"
PERIODS = (1, 10)  # seconds; Istio's shortest, and its default

_LABELS = {"app": GROUP}
_LOG = "/var/log/istio/istio.log"
# As Istio's script does it: Envoy cannot open the journal's socket as /dev/stdout. Its rules are
# set with the script's defaults; it cleans up first.
_DROP_IN = f"""\
[Service]
StandardOutput=append:{_LOG}
StandardError=append:{_LOG}
EnvironmentFile=/var/lib/istio/envoy/cluster.env
ExecStartPre=/usr/local/bin/pilot-agent istio-iptables --cleanup-only
ExecStartPre=/usr/local/bin/pilot-agent istio-iptables -p 15001 -z 15006 -u UID -g GID \
  -m REDIRECT -b * -d 22,15090,15021,15020 -i *
"""


@dataclass(frozen=True)
class IstioVm:
    rig: Rig
    vm: Machine

    def configure(self, period: int) -> None:
        """The WorkloadGroup with this probe period, and the VM's files made from it."""
        probe = {"periodSeconds": period, "httpGet": {"path": "/healthz", "port": 8080}}
        self.rig.kubectl("apply", "-f", "-", input=json.dumps(_group(probe)))
        self.rig.kubectl("apply", "-f", "-", input=json.dumps(_service_entry()))
        token = self.rig.kubectl(
            "create", "token", ACCOUNT, "-n", NAMESPACE, "--audience=istio-ca", "--duration=3600s"
        )
        metadata = self._metadata()
        mesh = {
            "defaultConfig": {
                "discoveryAddress": "istiod.istio-system.svc:15012",
                "proxyMetadata": metadata,
                "readinessProbe": probe,
            }
        }
        put = self.vm.write
        put("/var/run/secrets/tokens/istio-token", token, 0o644, "istio-proxy:istio-proxy")
        put("/etc/certs/root-cert.pem", self.rig.istiod.root_ca, 0o644, "istio-proxy:istio-proxy")
        put("/var/lib/istio/envoy/cluster.env", self._environment(metadata))
        put("/var/lib/istio/config/mesh", yaml.safe_dump(mesh))
        hosts = f"127.0.0.1 localhost\n{ADDRESS} istiod.istio-system.svc\n"
        self.vm.sh(f"printf '{hosts}' > /etc/hosts; : > {_LOG}; chown istio-proxy: {_LOG}")
        ids = [self.vm.run("id", flag, "istio-proxy").stdout.strip() for flag in ("-u", "-g")]
        drop_in = _DROP_IN.replace("UID", ids[0]).replace("GID", ids[1])
        put(f"/etc/systemd/system/{UNIT}.d/bench.conf", drop_in)
        self.vm.run("systemctl", "daemon-reload")

    def _metadata(self) -> dict[str, str]:
        return {
            "CANONICAL_SERVICE": GROUP, "CANONICAL_REVISION": "latest",
            "POD_NAMESPACE": NAMESPACE, "SERVICE_ACCOUNT": ACCOUNT,
            "TRUST_DOMAIN": "cluster.local", "ISTIO_META_CLUSTER_ID": "Kubernetes",
            "ISTIO_META_MESH_ID": "", "ISTIO_META_NETWORK": "",
            "ISTIO_META_WORKLOAD_NAME": GROUP, "ISTIO_METAJSON_LABELS": json.dumps(_LABELS),
            "ISTIO_META_DNS_CAPTURE": "true", "ISTIO_META_AUTO_REGISTER_GROUP": GROUP,
        }  # fmt: skip

    def _environment(self, metadata: dict[str, str]) -> str:
        more = {
            "ISTIO_INBOUND_PORTS": "*", "ISTIO_NAMESPACE": NAMESPACE,
            "ISTIO_SERVICE": f"{GROUP}.{NAMESPACE}", "ISTIO_SERVICE_CIDR": "*",
            "ISTIO_LOCAL_EXCLUDE_PORTS": "22,15090,15021,15020",
            # What istio-start.sh sets by itself.
            "INSTANCE_IP": self.vm.address, "POD_NAME": self.vm.name,
            "PROV_CERT": "./etc/certs", "OUTPUT_CERTS": "./etc/certs",
            "CLOUD_PLATFORM": "none",
        }  # fmt: skip
        return "".join(f"{key}='{value}'\n" for key, value in {**metadata, **more}.items())

    def start(self) -> None:
        self.vm.run("systemctl", "start", "--no-block", UNIT)

    def started(self) -> float:
        """time.monotonic() of pilot-agent's start, after the rules were set."""
        at = self.vm.unit_property(UNIT, "ExecMainStartTimestampMonotonic")
        return int(at) / 1e6

    def reset(self) -> None:
        """As before the first start: not running, no certificate, no entry."""
        # SIGTERM would be 5 s of draining, and 10 s until istiod removes the entry.
        self.vm.sh(
            f"systemctl kill -s KILL {UNIT} || true; systemctl stop {UNIT};"
            " rm -f /etc/certs/key.pem /etc/certs/cert-chain.pem"
        )
        self.rig.kubectl("delete", "workloadentries", "-n", NAMESPACE, "-l", f"app={GROUP}")


def _group(probe: dict[str, Any]) -> dict[str, Any]:
    return _object("WorkloadGroup", {
        "metadata": {"labels": _LABELS},
        "template": {"serviceAccount": ACCOUNT, "ports": {"http": 8080}},
        "probe": probe,
    })  # fmt: skip


def _service_entry() -> dict[str, Any]:
    return _object("ServiceEntry", {
        "hosts": [HOST], "addresses": ["240.240.0.31"],
        "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}],
        "workloadSelector": {"labels": _LABELS},
    })  # fmt: skip


def _object(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": GROUP, "namespace": NAMESPACE},
        "spec": spec,
    }
