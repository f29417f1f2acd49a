"""A VM dies: what the reaper makes of it, and the VM when it is powered on again."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.demo.account import Account, Unseen
from tests.load import Load
from tests.mesh_setup import HOST, NAMESPACE, VIP
from tests.rig.machine import Machine
from tests.sources import Api
from tests.stage import CLUSTER, Stage

OUT = "power cut of web-2: out of the client's Envoy"
ANSWERS = "requests failed in the second after"
BACK = "powered on again: web-2 in the client's Envoy"
CLAIMS = (OUT, ANSWERS, BACK)
LATEST_S = 11.0  # its lease and a second


@dataclass(frozen=True)
class Death:
    stage: Stage
    client: Machine
    vm: Machine
    account: Account

    def play(self) -> None:
        self.vm.power_cut()
        at = time.monotonic()
        self.account.line(OUT, lambda: self._out(at))
        with Load(self.client, VIP, HOST) as load:
            time.sleep(1.0)
        self.account.line(ANSWERS, lambda: _answers(load))
        self.account.line(BACK, self._back)

    def _out(self, at: float) -> str:
        self.client.wait(lambda: not self._listed(), 20, "the endpoint to go")
        took = time.monotonic() - at
        if took > LATEST_S:
            raise Unseen(f"{took:.1f} s, more than a lease and a second")
        entry = Api(self.stage.rig, NAMESPACE).get(
            "networking.istio.io", f"workloadentries/web.{self.vm.name}"
        )
        reasons = [c.get("reason") for c in entry.json()["status"]["conditions"]]
        return f"{took:.1f} s; its entry says {', '.join(reasons)}"

    def _back(self) -> str:
        began = time.monotonic()
        self.vm.boot()
        self.client.wait(self._listed, 60, "the endpoint")
        return f"{time.monotonic() - began:.1f} s later"

    def _listed(self) -> bool:
        return f"{self.vm.address}:8080" in self.client.endpoints(CLUSTER)


def _answers(load: Load) -> str:
    if load.failed or not load.answers:
        raise Unseen(f"{len(load.failed)} of {len(load.answers)} failed")
    return f"0 of {len(load.answers)}"
