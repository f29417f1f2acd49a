"""Tells agents how often to beat, and people how the fleet is."""

from __future__ import annotations

from typing import Callable, Optional

from vmoor.errors import VmoorError
from vmoor.model import lease
from vmoor.model.entry import Object
from vmoor.model.reaper import NAMESPACE, fleet
from vmoor.model.reaper.decision import Brake
from vmoor.model.reaper.election import Leadership
from vmoor.model.reaper.fleet import Published
from vmoor.model.reaper.seen import Pulse
from vmoor.ports import Clock, Cluster, Kind
from vmoor.reaper.watcher import Sight
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

CALL_S = 5.0


class Publishing:
    """`tell` is sd_notify's STATUS=."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        identity: str,
        budget: float,
        leadership: Cell[Leadership],
        leases: Cell[Sight[Pulse]],
        brakes: Cell[tuple[Brake, ...]],
        tell: Callable[[str], None],
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._budget = budget
        self._leadership = leadership
        self._leases = leases
        self._brakes = brakes
        self._tell = tell
        self._cluster = cluster.within(NAMESPACE)
        self._clock = clock
        self._lease: Optional[Object] = None  # as last written; None = look first

    def reconcile(self) -> Settled:
        sight, lead, now = self._leases.get(), self._leadership.get(), self._clock.now()
        beating = sum(1 for p in sight.things.values() if p.holder and p.grave is None)
        brakes = self._brakes.get()
        self._tell(_words(lead, beating, brakes))
        if not lead.acts(now) or not sight.live:
            self._lease = None
            return Settled("nothing to publish", fleet.PUBLISH_S, waiting=True)
        published = Published(fleet.interval(beating, self._budget), brakes)
        try:
            self._write(published)
        except VmoorError:
            self._lease = None
            raise
        return Settled("published", fleet.PUBLISH_S)

    def _write(self, published: Published) -> None:
        if self._lease is None:
            self._lease = self._cluster.get(Kind.LEASE, fleet.NAME, deadline=CALL_S)
        at = lease.micro_time(self._clock.wall())
        body = fleet.body(self._lease, published, self._identity, at)
        write = self._cluster.create if self._lease is None else self._cluster.replace
        self._lease = write(Kind.LEASE, body, deadline=CALL_S)


def _words(lead: Leadership, vms: int, brakes: tuple[Brake, ...]) -> str:
    if not lead.leader:
        return f"Standing by; {lead.holder or 'nobody'} leads"
    held = "; ".join(f"brake on {b.scope}: {b.lost} of {b.members} VMs lost" for b in brakes)
    return f"Watching {vms} VMs" + (f"; {held}" if held else "")
