"""What the mesh's owner does once, done on the rig: with vmoor's commands and docs/vault.md.

Nothing here is known to the rig only, but two things an installation of Istio brings and the rig's
bare istiod does not: ConfigMap `istio`, and an address at which VMs reach istiod.
"""

from __future__ import annotations

import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from tests.rig import process
from tests.rig.istiod import NAMESPACE as ISTIO_NAMESPACE
from tests.rig.rig import Rig

NAMESPACE = "shop"
ACCOUNT = "web"
MESH = "secret/vmoor/mesh-a"
HOST = "web.shop.mesh"
VIP = "240.240.0.1"

_ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"<!-- rig: executed verbatim -->\n```sh\n(.*?)```", re.DOTALL)
_VMOOR = """\
#!/bin/sh
PYTHONPATH={agent} PYTHONPYCACHEPREFIX={folder}/pyc exec /usr/bin/python3 -m vmoor "$@"
"""


@dataclass(frozen=True)
class Mooring:
    """A mesh that VMs of shop/web can join."""

    rig: Rig
    environment: dict[str, str]
    role_id: str = f"{NAMESPACE}-{ACCOUNT}"

    def run(self, *argv: str, input: Optional[str] = None) -> str:
        """A command of the owner's, in the rig's network; `vmoor` is the checkout's."""
        netns = self.rig.network.netns_name
        return process.run(argv, netns=netns, input=input, env=self.environment)

    def sh(self, script: str) -> str:
        return self.run("sh", "-euc", script)

    def publish(self, *options: str) -> str:
        discovery = f"--discovery={self.rig.istiod.discovery}"
        # A repeated option adds an address instead of replacing the first.
        more = (
            options if any(o.startswith("--discovery") for o in options) else (discovery, *options)
        )
        return self.run("vmoor", "admin", "publish", "--mesh", MESH, *more)

    def service_entry(self, *options: str) -> None:
        """With --retries the VirtualService as well."""
        self.sh(
            f"vmoor admin service-entry --namespace {NAMESPACE} --service {ACCOUNT} --host {HOST} "
            f"--port 80:http --vip {VIP} {shlex.join(options)} | kubectl apply -f -"
        )

    def secret_id(self, *, wrap_ttl: str = "") -> str:
        """A SecretID for one VM; with a wrap_ttl such as 300s its wrapping token."""
        way = f"auth/approle/role/{self.role_id}/secret-id"
        if wrap_ttl:
            how = [f"-wrap-ttl={wrap_ttl}", "-field=wrapping_token"]
        else:
            how = ["-field=secret_id"]
        return self.run("bao", "write", "-f", *how, way).strip()

    def meta_data(self) -> dict[str, str]:
        """What a cloud would give one VM: its own wrapping token."""
        return {"vmoor_wrap": self.secret_id(wrap_ttl="900s")}

    def user_data(
        self,
        *options: str,
        services: tuple[str, ...] = ("web=8080,unit=web.service,http=/healthz",),
    ) -> str:
        """The fleet's text; `options` join those of `vmoor admin user-data`."""
        return self.run(
            "vmoor", "admin", "user-data", f"--vault-address={self.rig.vault.url}",
            f"--role-id={self.role_id}", f"--mesh={MESH}", f"--namespace={NAMESPACE}",
            f"--service-account={ACCOUNT}", f"--name={ACCOUNT}",
            f"--vault-ca={self.rig.vault.ca}", *(f"--service={s}" for s in services), *options,
        )  # fmt: skip


def moor_ready(rig: Rig) -> Mooring:
    """Cluster and Vault, from nothing to what a VM needs."""
    mooring = Mooring(rig, _environment(rig))
    mooring.run("kubectl", "apply", "-f", "-", input=_istio_config(rig))
    mooring.sh(
        f"vmoor admin manifests --namespace {NAMESPACE} --service-account {ACCOUNT} "
        "| kubectl apply -f -"
    )
    with ThreadPoolExecutor(1) as pool:
        entry = pool.submit(mooring.service_entry)
        mooring.run("sh", "-c", documented())
        mooring.publish()
        entry.result()
    return mooring


def documented() -> str:
    """The block of docs/vault.md that creates what no command creates."""
    blocks: list[str] = _BLOCK.findall((_ROOT / "docs/vault.md").read_text())
    if len(blocks) != 1:
        raise AssertionError(f"docs/vault.md has {len(blocks)} blocks to be executed")
    return blocks[0]


def _environment(rig: Rig) -> dict[str, str]:
    folder = rig.workdir / "owner"
    folder.mkdir(exist_ok=True)
    program = folder / "vmoor"
    program.write_text(_VMOOR.format(agent=shlex.quote(str(_ROOT / "agent")), folder=folder))
    program.chmod(0o755)
    return {**rig.env, "PATH": f"{folder}:{rig.env['PATH']}"}


def _istio_config(rig: Rig) -> str:
    mesh = (rig.workdir / "istiod" / "mesh.yaml").read_text()
    return json.dumps({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": ISTIO_NAMESPACE},
        "data": {"mesh": mesh},
    })  # fmt: skip
