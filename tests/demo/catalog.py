"""A service that only the VM's Consul agent knows of: it joins, fails and returns."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import yaml

from tests.demo.account import Account, Unseen
from tests.mesh_setup import NAMESPACE
from tests.rig import consul
from tests.rig.machine import Machine
from tests.stage import Stage

SERVICE, PORT, HOST = "api", 9090, "api.shop.mesh"
CLUSTER = f"outbound|80||{HOST}"
JOINS = "declared to web-2's Consul agent alone: in the client's Envoy"
ANSWERS = f"client: curl http://{HOST}/"
FAILS = "its Consul check fails: out of the client's Envoy"
CLAIMS = (JOINS, ANSWERS, FAILS)

_UNIT = f"""\
[Service]
ExecStart=/usr/bin/python3 /usr/share/shop/web.py {PORT}
"""
_DECLARED = {
    "ID": SERVICE, "Name": SERVICE, "Port": PORT, "Tags": ["vmoor"],
    "Check": {"CheckID": "alive", "Name": "alive", "TTL": "600s", "Status": "passing"},
}  # fmt: skip


@dataclass(frozen=True)
class Catalog:
    stage: Stage
    client: Machine
    vm: Machine
    account: Account

    def play(self) -> None:
        self._prepare()
        if self.account.line(JOINS, self._joins):
            self.account.line(ANSWERS, self._curl)
            self.account.line(FAILS, self._fails)

    def _prepare(self) -> None:
        """An application and an agent that nobody told vmoor of."""
        self.stage.mesh.sh(
            f"vmoor admin service-entry --namespace {NAMESPACE} --service {SERVICE} "
            f"--host {HOST} --port 80:http --vip 240.240.0.2 | kubectl apply -f -"
        )
        self.vm.write("/etc/systemd/system/api.service", _UNIT)
        self.vm.write("/etc/consul.d/none.json", "{}")
        consul.install(self.vm)
        source = yaml.safe_dump({"sources": {"consul": {}}})
        self.vm.write("/etc/vmoor/conf.d/20-consul.yaml", source)
        self.vm.sh("systemctl start api; systemctl reload vmoor")
        self.vm.wait(lambda: self._ask("GET", "status/leader") not in ("", '""'), 20, "Consul")

    def _ask(self, method: str, path: str, body: str = "") -> str:
        url = f"http://127.0.0.1:8500/v1/{path}"
        argv = ["curl", "-sf", "-X", method, url, *(["-d", body] if body else [])]
        return self.vm.run(*argv, check=False).stdout

    def _joins(self) -> str:
        began = time.monotonic()
        self._ask("PUT", "agent/service/register", json.dumps(_DECLARED))
        self.client.wait(self._listed, 10, "the endpoint")
        return f"{time.monotonic() - began:.2f} s after its registration"

    def _curl(self) -> str:
        said = self.client.run("curl", "-sSi", "--max-time", "5", f"http://{HOST}/").stdout
        if said.split()[1] != "200" or said.split()[-1] != self.vm.name:
            raise Unseen(f"the answer was {said!r}")
        return f"200 from {self.vm.name}"

    def _fails(self) -> str:
        began = time.monotonic()
        self._ask("PUT", "agent/check/fail/alive")
        self.client.wait(lambda: not self._listed(), 10, "the endpoint to go")
        return f"{(time.monotonic() - began) * 1e3:.0f} ms"

    def _listed(self) -> bool:
        return f"{self.vm.address}:{PORT}" in self.client.endpoints(CLUSTER)
