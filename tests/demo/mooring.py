"""From power on to an endpoint in another VM's proxy: when others saw each step reached."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from tests.demo.account import Account
from tests.mesh_setup import NAMESPACE
from tests.rig import process
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.sources import Api, Audit, Entries
from tests.stage import CLUSTER, Stage

BOOT = "boot: systemd takes commands"
AGENT = "cloud-init installed vmoor, agent runs"
LOGIN = "Vault login (OpenBao's audit log)"
TOKENS = "credentials: both tokens minted (audit log)"
ENVOY = "Envoy live (readiness port)"
MOORED = "moored (the agent's own word)"
THERE = "registered: WorkloadEntry created (API server)"
HEALTHY = "healthy: condition True (API server)"
LISTED = "endpoint in the client's Envoy"
STEPS = (BOOT, AGENT, LOGIN, TOKENS, THERE, ENVOY, HEALTHY, LISTED, MOORED)

_PATIENCE = 60.0  # seconds for one step; each takes a few on a busy machine

When = Callable[[], Optional[float]]  # Unix seconds, None: not yet


@dataclass(frozen=True)
class Step:
    name: str
    when: When


def moor(
    stage: Stage, vms: Sequence[Machine], client: Optional[Machine], account: Account
) -> bool:
    """Boot them side by side and follow each; whether all steps of all were seen."""
    audit, entries = Audit(stage.rig.vault), Entries(Api(stage.rig, NAMESPACE))
    with ThreadPoolExecutor(len(vms)) as pool:
        following = [
            pool.submit(_follow, vm, _steps(vm, client, audit, entries), account) for vm in vms
        ]
        return all(each.result() for each in following)


def _follow(vm: Machine, steps: Sequence[Step], account: Account) -> bool:
    on = time.time()

    def boot() -> str:
        vm.boot()
        return f"{time.time() - on:.2f}"

    def reach(step: Step) -> str:
        try:
            at = process.wait_until(step.when, _PATIENCE, step.name, period=0.01)
        except RigError as e:
            raise RigError(f"{e}; {headline(vm)}") from e
        return f"{(at or 0.0) - on:.2f}"  # wait_until never returns None

    for name in STEPS:
        if name not in (BOOT, *(step.name for step in steps)):
            account.skip(name, vm.name)
    return account.line(BOOT, boot, vm.name) and all(
        account.line(step.name, lambda step=step: reach(step), vm.name)  # type: ignore[misc]
        for step in steps
    )


def _steps(
    vm: Machine, client: Optional[Machine], audit: Audit, entries: Entries
) -> Sequence[Step]:
    entry = f"web.{vm.name}"
    steps = [
        Step(AGENT, _now_that(lambda: document(vm))),
        Step(LOGIN, lambda: audit.granted(vm.address, "auth/approle/login")),
        Step(TOKENS, lambda: audit.granted(vm.address, "kubernetes/creds/", count=2)),
        Step(ENVOY, _now_that(lambda: vm.http_get(15021, "/healthz/ready")[0] == 200)),
        Step(MOORED, _now_that(lambda: document(vm).get("state") == "moored")),
    ]
    if client is not None:
        steps += [
            Step(THERE, lambda: entries.since(entry, "there")),
            Step(HEALTHY, lambda: entries.since(entry, "healthy")),
            Step(LISTED, _now_that(lambda: _endpoint(vm) in client.endpoints(CLUSTER))),
        ]
    return sorted(steps, key=lambda step: STEPS.index(step.name))


def _endpoint(vm: Machine) -> str:
    return f"{vm.address}:8080"


def _now_that(holds: Callable[[], object]) -> When:
    def when() -> Optional[float]:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            if holds():
                return time.time()
        return None

    return when


def document(vm: Machine) -> dict[str, object]:
    """The agent's status.json, OSError while there is none."""
    path = Path(f"/proc/{vm.pid1}/root/run/vmoor/status.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


def headline(vm: Machine) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f"{vm.name} says: {document(vm)['headline']}"
    return f"vmoor has never run on {vm.name}"
