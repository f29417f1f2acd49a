"""The three VMs of the benchmark: a client, one moored by vmoor, one by Istio's own path.

Both run the same application from the same disk, are seen by the same client, and answer the same
check; what is measured of one is measured of the other in the same way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import yaml

from tests.bench.istio import IstioVm
from tests.mesh_setup import HOST
from tests.rig.machine import Machine
from tests.stage import Stage, kill_main

PATIENCE = 90.0  # seconds; Istio's default probe period is 10
AGENT = "vmoor.service"
PROXY = "vmoor-proxy.service"
# A service that systemd restarts after half a second is never missed by a probe each 10 s.
_STAYS_DOWN = "[Service]\nRestart=no\n"
_PAUSE_S = 1.0  # random pause before each run, so that none is in phase with a timer


@dataclass(frozen=True)
class Scene:
    stage: Stage
    client: Machine
    web: Machine
    istio: IstioVm
    tell: Callable[[str], None]

    def listed(self, vm: Machine, host: str = HOST, port: int = 8080) -> bool:
        """Whether the client's Envoy would send requests to this VM now."""
        return f"{vm.address}:{port}" in self.client.endpoints(f"outbound|80||{host}")

    def until_listed(self, vm: Machine, host: str = HOST, port: int = 8080) -> None:
        self.client.wait(lambda: self.listed(vm, host, port), PATIENCE, f"{vm.name}'s endpoint")

    def until_gone(self, vm: Machine, host: str = HOST, port: int = 8080) -> None:
        self.client.wait(lambda: not self.listed(vm, host, port), PATIENCE, f"{vm.name} to go")

    def moored(self) -> None:
        """vmoor's VM as it should be, whatever was done to it."""
        self.web.run("systemctl", "start", "web", "vmoor")
        self.until_listed(self.web)

    def crash(self, vm: Machine, host: str, period: float) -> float:
        """Seconds from kill -9 of the application until the client's Envoy has forgotten it.

        It was listed by a probe a moment ago: the kill comes anywhere within the next period.
        """
        any_phase(period)
        at = kill_main(vm, "web.service")
        self.until_gone(vm, host)
        took = time.monotonic() - at
        vm.run("systemctl", "start", "web")
        self.until_listed(vm, host)
        return took


def any_phase(most: float = _PAUSE_S) -> None:
    time.sleep(random.uniform(0.0, most))


def set_up(stage: Stage, tell: Callable[[str], None]) -> Scene:
    client = stage.client("client", "198.18.0.21")
    web = plain_secret_id(stage, "web-vmoor", "198.18.0.11")
    other = stage.vm("web-istio", "198.18.0.31", user_data="#cloud-config\n{}\n", meta_data={})
    stage.boot(client, web, other)
    for vm in (web, other):
        vm.write("/etc/systemd/system/web.service.d/bench.conf", _STAYS_DOWN)
        vm.run("systemctl", "daemon-reload")
    scene = Scene(stage, client, web, IstioVm(stage.rig, other), tell)
    scene.moored()
    return scene


def plain_secret_id(stage: Stage, name: str, address: str) -> Machine:
    """A VM of the fleet whose SecretID lies there as it is: usable for many cold starts."""
    text = stage.user_data("--secret-id=plain")
    return stage.vm(
        name, address, user_data=text,
        meta_data={"instance-id": name, "vmoor_wrap": stage.mesh.secret_id()},
    )  # fmt: skip


def host_pid(vm: Machine, unit: str) -> int:
    """A unit's main process, as the host counts."""
    inside = vm.unit_property(unit, "MainPID")
    # The kernel translates pids for the reader of the file.
    group = Path(f"/proc/{vm.pid1}/root/sys/fs/cgroup/system.slice/{unit}/cgroup.procs")
    for pid in group.read_text().split():
        status: Mapping[str, Any] = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":" in line
        )
        if status["NSpid"].split()[-1] == inside:
            return int(pid)
    raise RuntimeError(f"{vm.name}: {unit} has no main process")


def configuration(vm: Machine) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(vm.read("/etc/vmoor/conf.d/10-mesh.yaml"))
    return found
