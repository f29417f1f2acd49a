"""Thousands of VMs of three services each, as Leases and entries at a real API server.

python3 -m tests.bench.fleet [VMS] measures it without any VM.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from vmoor.adapters.clock import SystemClock
from vmoor.adapters.kube import Access, Kube
from vmoor.errors import VmoorError
from vmoor.model import entry, lease, registration
from vmoor.model.entry import Object
from vmoor.model.lease import Pace
from vmoor.model.reaper import fleet
from vmoor.model.secret import Secret
from vmoor.model.service import Service, Workload
from vmoor.ports import Kind

from tests import reapers
from tests.bench import alone
from tests.bench.figures import Row, Series
from tests.bench.idle import Taken
from tests.bench.scene import Scene
from tests.rig import inside
from tests.rig.rig import Rig
from tests.unit.reaper.world import SimVm

VMS = 3_000
SERVICES = ("web", "api", "db")
NAMESPACE = "herd"
THREADS = 4
BUDGET = 100.0  # beats a second; with all of the mesh and the VMs on two cores 300 are too many
DYING = 10  # VMs, whose entries are healthy
MINUTE_S = 60.0
RSS_MB, CPU_MS, LOOK_S, LATE_S = 300.0, 300.0, 2.0, 2.0  # the bars
D = 30.0


class Herd:
    """VMs that beat by one PUT each, as agents do."""

    def __init__(self, rig: Rig, count: int) -> None:
        self._netns, self._clock = rig.network.netns_path, SystemClock()
        access = Access(
            (rig.kube.url,), rig.kube.ca, Secret(rig.kube.token), NAMESPACE, "admin", ""
        )
        self._kubes = [Kube(lambda: access) for _ in range(THREADS)]
        self.pace = Pace(fleet.interval(count, BUDGET))
        workload = Workload(NAMESPACE, "herd", "herd")
        self.vms = [
            SimVm(self._kubes[n % THREADS], self._clock, f"vm{n}", workload=workload,
                  address=f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}")
            for n in range(count)
        ]  # fmt: skip
        self.beats, self.last = 0, dict.fromkeys(range(DYING), 0.0)
        self._leases: dict[str, Object] = {}
        self._dead: set[str] = set()
        self._done = threading.Event()
        rig.kubectl("create", "namespace", NAMESPACE)

    def each(self, work: Callable[[Sequence[SimVm]], None]) -> None:
        """In as many threads of the rig's network as there are connections."""
        with ThreadPoolExecutor(THREADS, initializer=self._enter) as pool:
            shares = [self.vms[n::THREADS] for n in range(THREADS)]
            list(pool.map(work, shares))

    def _enter(self) -> None:
        inside.enter(self._netns)

    def register(self, vms: Sequence[SimVm]) -> None:
        for vm in vms:
            self._beat(vm)
            for service in SERVICES:
                body = registration.desired(Service(service, {"http": 8080}, ()), vm.place)
                made = vm.cluster.create(Kind.ENTRY, body, deadline=D)
                if vm in self.vms[: DYING + 5]:
                    vm.say({**made, "kind": "WorkloadEntry"}, healthy=True)

    def live(self, vms: Sequence[SimVm]) -> None:
        """Beat each once an interval, spread over it, until the end."""
        start, turn = time.monotonic(), 0
        while True:
            for n, vm in enumerate(vms):
                due = start + self.pace.interval * (turn + n / len(vms))
                if self._done.wait(max(0.0, due - time.monotonic())):
                    return
                if vm.name not in self._dead:
                    with suppress(VmoorError):
                        self._beat(vm)
            turn += 1

    def _beat(self, vm: SimVm) -> None:
        old = self._leases.get(vm.name)
        body = lease.body(
            old, machine=vm.machine, owner=vm.owner, duration=self.pace.duration,
            renewed=lease.micro_time(self._clock.wall()),
        )  # fmt: skip
        write = vm.cluster.create if old is None else vm.cluster.replace
        self._leases[vm.name] = write(Kind.LEASE, body, deadline=D)
        self.beats += 1
        vm.beaten = time.monotonic()  # type: ignore[attr-defined]

    def die(self) -> Sequence[SimVm]:
        dying = self.vms[:DYING]
        self._dead.update(vm.name for vm in dying)
        return dying

    def end(self) -> None:
        self._done.set()

    def out(self, vm: SimVm) -> bool:
        def look() -> bool:
            have = vm.cluster.get(Kind.ENTRY, f"web.{vm.name}", deadline=D)
            return entry.health_status(have or {}) == "False"

        return inside.call(self._netns, look)


def measure(rig: Rig, vmoor: Callable[[str], str], count: int) -> list[Row]:
    token = reapers.prepare(rig, vmoor)
    herd = Herd(rig, count)
    with reapers.Reaper(rig, token) as reaper:
        began = time.monotonic()
        herd.each(herd.register)
        made = time.monotonic() - began
        beating = threading.Thread(target=herd.each, args=(herd.live,), daemon=True)
        beating.start()
        try:
            return _rows(rig, vmoor, herd, reaper, made)
        finally:
            herd.end()
            beating.join(60)


def _rows(
    rig: Rig, vmoor: Callable[[str], str], herd: Herd, reaper: reapers.Reaper, made: float
) -> list[Row]:
    assert reaper.process is not None
    count, lasts = len(herd.vms), herd.pace.duration
    time.sleep(herd.pace.interval)
    before, beats = Taken.now(reaper.process.pid), herd.beats
    time.sleep(MINUTE_S)
    after, beaten = Taken.now(reaper.process.pid), (herd.beats - beats) / MINUTE_S
    cpu = (after.cpu_ms - before.cpu_ms) / MINUTE_S
    server = Taken.now(rig.kube.process.pid).rss_mb
    began = time.monotonic()
    vmoor("vmoor fleet --json > /dev/null || test $? = 1")  # 1: not all of them beat in time
    looked = time.monotonic() - began
    print(
        f"written in {made:.0f} s, {beaten:.0f} beats/s, reaper {after.rss_mb:.0f} MB {cpu:.0f} "
        f"ms/s, API server {server:.0f} MB, vmoor fleet {looked:.2f} s", flush=True,
    )  # fmt: skip
    late = _deaths(herd)
    what = f"{count} VMs of {len(SERVICES)} services"
    how = f"written in {made:.0f} s; {beaten:.0f} beats a second; API server {server:.0f} MB"
    return [
        Row(f"reaper, {what}: memory (VmRSS)", Series((after.rss_mb,), "MB"),
            bar=f"<= {RSS_MB:.0f} MB", met=after.rss_mb <= RSS_MB, notes=(how,)),
        Row(f"reaper, {what}: CPU", Series((cpu,), "ms/s"), bar=f"<= {CPU_MS:.0f} ms/s",
            met=cpu <= CPU_MS),
        Row(f"`vmoor fleet`, {what}", Series((looked,)), bar=f"<= {LOOK_S:.0f} s",
            met=looked <= LOOK_S),
        Row(f"dead → out after its lease of {lasts} s, {what}", Series(tuple(late)),
            bar=f"<= {LATE_S:.0f} s", met=max(late) <= LATE_S),
    ]  # fmt: skip


def _deaths(herd: Herd) -> list[float]:
    """By how much later than its lease each of them is out."""
    waiting, late = dict.fromkeys(herd.die()), []
    while waiting:
        time.sleep(0.2)
        for vm in list(waiting):
            age = time.monotonic() - vm.beaten  # type: ignore[attr-defined]
            if age > herd.pace.duration - 1 and herd.out(vm):
                late.append(age - herd.pace.duration)
                del waiting[vm]
            elif age > 3 * herd.pace.duration:
                raise RuntimeError(f"{vm.name} is still in the mesh")
    return late


def thousands(scene: Scene, _: int) -> list[Row]:
    return measure(scene.stage.rig, scene.stage.mesh.sh, VMS)


if __name__ == "__main__":
    alone.run(measure, VMS)
