"""A kind of VM of its own for each test module: what its owner sets up, and its VMs.

Its VMs reach Vault and the API server through a fault proxy each, which passes everything on
until a test says otherwise. The namespace, both accounts, Vault's roles, policy and AppRole, the
mesh facts and the ServiceEntry are made as for the first kind, by vmoor's commands and
docs/vault.md. So a module may break any of them without disturbing another one.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from tests import mesh_setup
from tests.mesh_setup import Mooring
from tests.rig.machine import Machine
from tests.rig.root import Disk
from tests.sources import Api
from tests.stage import Stage

SOURCE = "--apt-source=deb [trusted=yes] file:/srv/repo ./"
CONFIGURATION = "/etc/vmoor/conf.d/10-mesh.yaml"
SECRET_ID = "/etc/vmoor/credentials/secret-id"
VAULT_CA = "/etc/vmoor/vault-ca.pem"
SERVICE = "web"
PORT = 8080
WEB = {"port": PORT, "unit": "web.service", "checks": [{"http": "/healthz", "period": "1s"}]}

_NUMBERS = itertools.count(1)
_ADDRESSES = itertools.count(1)

Document = dict[str, Any]


class Fleet:
    """VMs of one workload, whose namespace, account and workload have the same name."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.rig = stage.rig
        self.name = self.namespace = self.account = name
        self.role_id = f"{name}-{name}"  # docs/vault.md
        self.mesh = f"secret/vmoor/{name}"
        self.host = f"{SERVICE}.{name}.mesh"
        self.cluster = f"outbound|80||{self.host}"  # what Envoy calls it
        self.vip = f"240.240.1.{next(_NUMBERS)}"
        self.api = Api(self.rig, name)
        self.vault = self.rig.fault_proxy(self.rig.vault.url)
        self.kube = self.rig.fault_proxy(self.rig.kube.url)
        own = {"NAMESPACE": name, "ACCOUNT": name, "MESH": self.mesh}
        environment = {**stage.mesh.environment, **own}
        self.owner: Mooring = replace(stage.mesh, role_id=self.role_id, environment=environment)

    def __enter__(self) -> Fleet:  # noqa: PYI034
        self.vault.__enter__()
        self.kube.__enter__()
        self.set_up()
        return self

    def __exit__(self, *_: object) -> None:
        # Also of VMs that took another name: to a reaper of a later module they would be dead.
        self.rig.kubectl(
            "delete", "workloadentries,leases", "-n", self.namespace, "--all", "--wait=false"
        )
        self.kube.__exit__()
        self.vault.__exit__()

    def clear(self) -> None:
        """End all faults of both proxies."""
        self.vault.clear()
        self.kube.clear()

    # What its owner does

    def set_up(self) -> None:
        self.owner.sh(
            f"vmoor admin manifests --namespace {self.namespace} --service-account {self.account}"
            " | kubectl apply -f -"
        )
        self.owner.run("sh", "-c", mesh_setup.documented())
        self.publish()
        self._serve({SERVICE: self.vip})

    def announce(self, *services: str) -> dict[str, str]:
        """A ServiceEntry for each, named SERVICE.NAMESPACE.mesh; their virtual addresses."""
        vips = {name: f"240.240.1.{next(_NUMBERS)}" for name in services}
        self._serve(vips)
        return vips

    def _serve(self, vips: Mapping[str, str]) -> None:
        commands = "; echo ---; ".join(
            f"vmoor admin service-entry --namespace {self.namespace} --service {name}"
            f" --host {name}.{self.name}.mesh --port 80:http --vip {vip}"
            for name, vip in vips.items()
        )
        self.owner.sh(f"({commands}) | kubectl apply -f -")

    def without_retries(self) -> None:
        """Istio tries a request twice by default, and would hide what fails."""
        route = {"route": [{"destination": {"host": self.host}}], "retries": {"attempts": 0}}
        body = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "no-retries", "namespace": self.namespace},
            "spec": {"hosts": [self.host], "http": [route]},
        }
        self.rig.kubectl("apply", "-f", "-", input=json.dumps(body))

    def publish(self, *options: str) -> str:
        return self.owner.run(
            "vmoor", "admin", "publish", f"--mesh={self.mesh}", f"--server={self.kube.url}",
            f"--discovery={self.rig.istiod.discovery}", *options,
        )  # fmt: skip

    def facts(self) -> Document:
        """The mesh facts, as `publish` writes them and as `mesh:` may hold them."""
        facts: Document = json.loads(self.publish("--print"))
        return facts

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Whatever it is: also what no command would publish."""
        self.owner.run("bao", "kv", "put", self.mesh, "-", input=json.dumps(facts))

    def policy(self) -> None:
        self.owner.sh(
            f"vmoor admin vault-policy --role {self.account} --namespace {self.namespace}"
            f" --mesh {self.mesh} | bao policy write vmoor-{self.account} -"
        )

    def secret_id(self, *, wrap_ttl: str = "") -> str:
        return self.owner.secret_id(wrap_ttl=wrap_ttl)

    @property
    def wrapping_path(self) -> str:
        return f"auth/approle/role/{self.role_id}/secret-id"

    # Its VMs

    def config(self, *, mesh: object = None, wrapped: bool = False, **more: Any) -> Document:
        """The configuration of such a VM; keys in `more` replace what is here."""
        auth = {"method": "approle", "role_id": self.role_id}
        if wrapped:
            auth["secret_id_response_wrapping_path"] = self.wrapping_path
        return {
            "vault": {
                "address": self.vault.url, "ca_cert": VAULT_CA, "auth": auth,
            },
            "mesh": mesh or self.mesh,
            "workload": {
                "namespace": self.namespace, "name": self.name, "service_account": self.account,
            },
            "services": {SERVICE: WEB},
            **more,
        }  # fmt: skip

    def user_data(self, *options: str, drop_in: Optional[Mapping[str, Any]] = None) -> str:
        """`drop_in` is a configuration file that comes after the command's own."""
        text = self.owner.run(
            "vmoor", "admin", "user-data", f"--vault-address={self.vault.url}",
            f"--role-id={self.role_id}", f"--mesh={self.mesh}", f"--namespace={self.namespace}",
            f"--service-account={self.account}", f"--name={self.name}",
            f"--vault-ca={self.rig.vault.ca}", SOURCE,
            f"--service={SERVICE}={PORT},unit=web.service,http=/healthz", *options,
        )  # fmt: skip
        if drop_in is None:
            return text
        content = json.dumps(drop_in).replace("'", "''")
        before, mark, after = text.partition("write_files:\n")
        assert mark, text
        line = f"  - {{path: /etc/vmoor/conf.d/20-test.yaml, content: '{content}'}}\n"
        return f"{before}{mark}{line}{after}"

    def vm(
        self,
        name: str,
        *options: str,
        drop_in: Optional[Mapping[str, Any]] = None,
        user_data: str = "",
        meta_data: Optional[Mapping[str, str]] = None,
        secret_id: str = "wrapped",
        disk: Optional[Disk] = None,
    ) -> Machine:
        """A VM that has not booted yet; `options` are more of `vmoor admin user-data`'s,
        `meta_data` more of what its cloud tells it.

        `secret_id`: wrapped, plain or none, or what comes by instance metadata as it is.
        """
        kind = f"--secret-id={secret_id if secret_id in ('plain', 'none') else 'wrapped'}"
        if secret_id == "wrapped":
            made = {"vmoor_wrap": self.secret_id(wrap_ttl="900s")}
        elif secret_id == "none":
            made = {}
        else:
            made = {"vmoor_wrap": self.secret_id() if secret_id == "plain" else secret_id}
        text = user_data or self.user_data(kind, *options, drop_in=drop_in)
        high, low = divmod(next(_ADDRESSES), 200)
        return self.stage.vm(
            name, f"198.18.{10 + high}.{10 + low}", user_data=text,
            meta_data={"instance-id": name, **made, **(meta_data or {})}, disk=disk,
        )  # fmt: skip

    def forget(self, vm: Machine) -> None:
        """Remove what a VM that is gone left behind, as a reaper would."""
        self.rig.kubectl(
            "delete", "workloadentries,leases", "-n", self.namespace, "--wait=false",
            "-l", f"vmoor.io/vm={vm.name}",
        )  # fmt: skip

    # What the API server and the client know of them

    def entry(self, vm: Machine, service: str = SERVICE) -> Optional[Document]:
        return self._get("networking.istio.io", f"workloadentries/{service}.{vm.name}")

    def lease(self, vm: Machine) -> Optional[Document]:
        return self._get("coordination.k8s.io", f"leases/vmoor-{vm.name}")

    def in_mesh(self, client: Machine, vm: Machine) -> bool:
        """Whether the client's Envoy would send requests to this VM now."""
        return f"{vm.address}:{PORT}" in client.endpoints(self.cluster)

    def ports(self, client: Machine, vm: Machine, service: str = "") -> set[int]:
        """Where on this VM the client's Envoy would reach this service, or any of the fleet."""
        cluster = f"|{service}.{self.name}.mesh" if service else f".{self.name}.mesh"
        found = (each.rpartition(":") for each in client.endpoints(cluster))
        return {int(port) for address, _, port in found if address == vm.address}

    def get(self, client: Machine) -> tuple[int, str]:
        """Status and body of the client's plain `curl http://web.NAMESPACE.mesh/`; 0 = none."""
        said = client.run(
            "curl", "-sS", "--max-time", "5", "-w", "\n%{http_code}", f"http://{self.host}/",
            check=False,
        ).stdout  # fmt: skip
        body, _, status = said.rpartition("\n")
        return int(status or 0), body.strip()

    def _get(self, group: str, what: str) -> Optional[Document]:
        answer = self.api.get(group, what)
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        found: Document = answer.json()
        return found

    def bao(self, *args: str, input: Optional[str] = None) -> str:
        return self.owner.run("bao", *args, input=input)

    def __repr__(self) -> str:
        return f"Fleet({shlex.quote(self.name)})"
