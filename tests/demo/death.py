"""A VM dies: what the reaper makes of it, and the VM when it is powered on again. Another one is
shut down as it should be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Optional

from tests.demo.account import Account, Unseen
from tests.load import Load
from tests.mesh_setup import HOST, NAMESPACE, VIP
from tests.rig.machine import Machine
from tests.rig.process import wait_until
from tests.sources import Api
from tests.stage import CLUSTER, Stage

OUT = "power cut of web-2: out of the client's Envoy"
ANSWERS = "requests failed in the second after"
BACK = "powered on again: web-2 in the client's Envoy"
LEFT = "poweroff of web-1: out of the client's Envoy"
UNFELT = "requests failed meanwhile, and in the second after it"
CLAIMS = (OUT, ANSWERS, BACK, LEFT, UNFELT)
LATEST_S = 11.0  # its lease and a second


@dataclass(frozen=True)
class Death:
    stage: Stage
    client: Machine
    vm: Machine
    leaver: Machine
    account: Account

    def play(self) -> None:
        self.vm.power_cut()
        at = time.monotonic()
        self.account.line(OUT, lambda: self._out(at))
        with Load(self.client, VIP, HOST) as load:
            time.sleep(1.0)
        self.account.line(ANSWERS, lambda: _answers(load))
        self.account.line(BACK, self._back)

    def leave(self) -> None:
        with Load(self.client, VIP, HOST) as load:
            time.sleep(0.5)
            at = time.monotonic()
            self.leaver.run("systemctl", "poweroff", "--no-block")
            self.account.line(LEFT, lambda: self._left(at))
            time.sleep(1.0)
        self.account.line(UNFELT, lambda: _answers(load))

    def _left(self, at: float) -> str:
        self.client.wait(lambda: not self._listed(self.leaver), 10, "the endpoint to go")
        took = time.monotonic() - at
        wait_until(lambda: not self.leaver.alive, 20, "the VM to be off")
        return f"{took * 1e3:.0f} ms; the VM is off after {time.monotonic() - at:.1f} s"

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

    def _listed(self, vm: Optional[Machine] = None) -> bool:
        return f"{(vm or self.vm).address}:8080" in self.client.endpoints(CLUSTER)


def _answers(load: Load) -> str:
    if load.failed or not load.answers:
        raise Unseen(f"{len(load.failed)} of {len(load.answers)} failed")
    return f"0 of {len(load.answers)}"
