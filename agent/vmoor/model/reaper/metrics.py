"""What Prometheus is told by a reaper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from vmoor.model.metrics import Family
from vmoor.model.reaper import overview
from vmoor.model.reaper.decision import MESH, Brake
from vmoor.model.reaper.seen import Endpoint, Pulse


def of_reaper(*, leads: bool, brakes: Iterable[Brake], removals: int) -> Iterator[Family]:
    yield Family("vmoor_fleet_leader", "Whether this reaper acts.", [({}, leads)])
    held = {brake.scope for brake in brakes}
    yield Family(
        "vmoor_fleet_brake",
        "1 where so many VMs are lost that none is removed.",
        [({"scope": str(scope)}, scope in held) for scope in sorted({MESH, *held})],
    )
    words = "Entries that this process took out of the mesh."
    yield Family("vmoor_fleet_removals", words, [({}, removals)], counter=True)


def of_vms(now: float, pulses: Collection[Pulse], endpoints: Collection[Endpoint]) -> Family:
    """Counted as `vmoor fleet` does, but by the reaper's own clock."""
    expired = {e.vm for e in endpoints if e.expired}
    count = Counter(overview.state(p, now - p.changed, expired=p.vm in expired) for p in pulses)
    count["no lease"] = len({e.vm for e in endpoints} - {p.vm for p in pulses})
    return Family(
        "vmoor_fleet_vms",
        "How many VMs are in which state of vmoor fleet.",
        [({"state": state}, count[state]) for state in overview.STATES],
    )
