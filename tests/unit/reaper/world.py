"""A reaper without threads over any cluster, and VMs that are made of their objects alone."""

from __future__ import annotations

from typing import Any

from vmoor import ports
from vmoor.errors import Conflict
from vmoor.model import entry, lease, registration
from vmoor.model.entry import Object, Owner
from vmoor.model.machine import Machine
from vmoor.model.reaper import seen
from vmoor.model.reaper.decision import Brake
from vmoor.model.reaper.election import Leadership
from vmoor.model.reaper.seen import Endpoint, Pulse
from vmoor.model.registration import Place, Word
from vmoor.model.service import Service, Workload
from vmoor.ports import Kind
from vmoor.reaper.election import Election
from vmoor.reaper.publishing import Publishing
from vmoor.reaper.reaping import Reaping
from vmoor.reaper.watcher import Sight, Watcher
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import WORKLOAD, Clock

D = 10.0


class SimVm:
    """What a VM's agent writes, without an agent."""

    def __init__(
        self,
        cluster: Any,
        clock: ports.Clock,
        name: str,
        *,
        workload: Workload = WORKLOAD,
        address: str = "10.0.0.1",
        locality: str = "",
    ) -> None:
        self.cluster, self.clock, self.name, self.address = cluster, clock, name, address
        self.owner = Owner(name, workload.service_account)
        self.machine = Machine(name, f"m-{name}", "b1")
        self.place = Place(
            self.owner, self.machine.holder, workload, address, locality=locality
        )  # fmt: skip

    def beat(self, duration: float = lease.DURATION_S) -> None:
        name = lease.lease_name(self.name)
        old = self.cluster.get(Kind.LEASE, name, deadline=D)
        body = lease.body(
            old, machine=self.machine, owner=self.owner, duration=duration,
            renewed=lease.micro_time(self.clock.wall()),
        )  # fmt: skip
        write = self.cluster.create if old is None else self.cluster.replace
        write(Kind.LEASE, body, deadline=D)

    def serve(self, *services: str, healthy: bool = True) -> None:
        for service in services:
            body = registration.desired(Service(service, {"http": 8080}, ()), self.place)
            have = self.cluster.apply(Kind.ENTRY, body, force=True, deadline=D)
            self.say(have, healthy=healthy)

    def say(self, have: Object, *, healthy: bool) -> None:
        body = registration.says(have, Word(healthy, "Said", "said"), self.clock.wall())
        self.cluster.apply(Kind.ENTRY, body, force=True, status=True, deadline=D)

    def health(self, service: str = "web") -> tuple[str, str]:
        name = registration.entry_name(service, self.name)
        have = self.cluster.get(Kind.ENTRY, name, deadline=D)
        said = entry.health(have) if have is not None else None
        return (str(said["status"]), str(said["reason"])) if said else ("", "")


class Reaper:
    def __init__(self, cluster: FakeCluster, clock: Clock, identity: str = "r1") -> None:
        self.cluster, self.clock = cluster, clock
        self.leadership: Cell[Leadership] = Cell(Leadership())
        self.leases: Cell[Sight[Pulse]] = Cell(Sight())
        self.entries: Cell[Sight[Endpoint]] = Cell(Sight())
        self.latency, self.brakes = Cell(0.0), Cell[tuple[Brake, ...]](())
        self.removals = Cell(0)
        self.told: list[str] = []
        self.election = Election(identity, self.leadership, self.latency, cluster, clock)
        self.reaping = Reaping(
            leadership=self.leadership, leases=self.leases, entries=self.entries,
            latency=self.latency, brakes=self.brakes, removals=self.removals, zone_loss=True,
            cluster=cluster, clock=clock,
        )  # fmt: skip
        self.publishing = Publishing(
            identity=identity, budget=300.0, leadership=self.leadership, leases=self.leases,
            brakes=self.brakes, tell=self.told.append, cluster=cluster, clock=clock,
        )  # fmt: skip
        self._leases = Watcher(Kind.LEASE, seen.pulse, self.leases, cluster, clock)
        self._entries = Watcher(Kind.ENTRY, seen.endpoint, self.entries, cluster, clock)

    def look(self) -> None:
        self._leases.reconcile()
        self._entries.reconcile()

    def turn(self) -> Settled:
        """As its loops would: the Lease, the watches, then what follows."""
        self.election.reconcile()
        self.look()
        return self.reaping.reconcile()


def pass_by(
    clock: Clock, seconds: float, *reapers: Reaper, beating: tuple[SimVm, ...] = ()
) -> None:
    """Time goes by in steps that are no gap of the watch."""
    end, step = clock.now() + seconds, 2.0 if seconds < 100 else 4.0
    while clock.now() < end:
        clock.pass_by(min(step, end - clock.now()))
        for vm in beating:
            try:
                vm.beat()
            except Conflict:
                vm.beat()
        for reaper in reapers:
            reaper.turn()
