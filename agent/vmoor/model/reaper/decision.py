"""Who is dead, and what may be done about it: the brake.

Three things look alike from here: a VM is dead, its beats do not arrive, we do not see them. So
nothing is removed that cannot be put back at once, and never so much that a fault of ours could
empty a service: a few VMs, or up to 30 %, or one zone, of a service and of the mesh.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from vmoor.model.reaper.seen import Endpoint, Grave, Pulse, Vm

SILENT_BEATS = 1.5  # intervals without a beat: not dead, but it counts against the brake
START_LEASES = 2  # nobody is dead before we have looked for two of its leases
LATENCIES = 3  # of our own writes; who beats has the same API server
FREE = 2  # so many VMs may always go, or a service of three could not lose one
SHARE = (3, 10)  # of the VMs of a scope
ZONE_REST = 2  # VMs outside a zone that must be there to speak for it
ZONE_ALIVE = 20  # 1/20 of these may be lost: at least 95 % are outside Q
DELETE_S = 600.0  # out of the mesh for so long: the entry goes
TOMBSTONE_S = 3600.0  # a dead VM counts for so long after its entries are gone
# What no beat vouches for any more: entries without a Lease, Leases without entries, entries of
# the dead that were not healthy when it died, those of a drained VM that beats no more.
ORPHAN_S = 3600.0


class Scope(NamedTuple):
    """A service of a namespace; the whole mesh has neither."""

    namespace: str = ""
    service: str = ""

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}" if self.service else "the mesh"


MESH = Scope()
NEVER: Mapping[Scope, float] = {}


class Brake(NamedTuple):
    scope: Scope
    lost: int
    members: int


class Held(NamedTuple):
    endpoint: Endpoint
    reason: str


class Decision(NamedTuple):
    """`wake`: the next instant at which a comparison flips; inf = not without a change."""

    out: Sequence[Endpoint] = ()
    hold: Sequence[Held] = ()
    delete: Sequence[Endpoint] = ()
    forget: Sequence[Pulse] = ()  # Leases to delete
    wake: float = math.inf
    brakes: Sequence[Brake] = ()
    lost: int = 0  # VMs that count against the brake of the mesh


class _Clock:
    """Compares with now, and remembers the next instant that would compare otherwise."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.wake = math.inf

    def past(self, at: float) -> bool:
        if self.now > at:
            return True
        self.wake = min(self.wake, at)
        return False


@dataclass
class _Tally:
    """P and Q of a scope, and of each zone in it."""

    members: int = 0
    lost: int = 0
    zones: dict[str, list[int]] = field(default_factory=dict)

    def add(self, zone: str, *, lost: bool) -> None:
        self.members += 1
        self.lost += lost
        if zone:
            counts = self.zones.setdefault(zone, [0, 0])
            counts[0] += 1
            counts[1] += lost

    def braked(self, *, zone_loss: bool) -> bool:
        if self.lost <= max(FREE, SHARE[0] * self.members // SHARE[1]):
            return False
        return not (zone_loss and any(self._only(*zone) for zone in self.zones.values()))

    def _only(self, members: int, lost: int) -> bool:
        """Whether all but this zone lives. What is left of P and Q then never brakes."""
        rest = self.members - members
        return rest >= ZONE_REST and (self.lost - lost) * ZONE_ALIVE <= rest


@dataclass
class _State:
    """What the Leases say: `dead` and `gone` map to the seconds without a beat."""

    lost: set[Vm] = field(default_factory=set)
    dead: dict[Vm, float] = field(default_factory=dict)
    lasts: dict[Vm, float] = field(default_factory=dict)  # their leases' seconds, of the dead
    ignored: set[Vm] = field(default_factory=set)
    abandoned: set[Vm] = field(default_factory=set)  # of these: drained, and silent for long
    graves: dict[Vm, Grave] = field(default_factory=dict)


def decide(  # noqa: PLR0913 - every input of the decision by name
    now: float,
    t0: float,
    leases: Collection[Pulse],
    entries: Iterable[Endpoint],
    confirmed: Collection[Vm],
    zone_loss: bool,  # noqa: FBT001 - the last input
    latency: float = 0.0,
    eased: Mapping[Scope, float] = NEVER,
) -> Decision:
    """`t0`: our start, or the end of the last gap of our watch. `latency`: seconds of our writes.

    `zone_loss`: a whole zone may be lost without a brake. `eased`: since when a scope that was
    braked is so no more. When the fault that silenced many ends, some beat a little later than the
    others: the last of them have another lease before they are taken for dead.
    """
    clock = _Clock(now)
    state = _judge(clock, t0, leases, latency)
    owned: dict[Vm, list[Endpoint]] = defaultdict(list)
    aside: dict[Vm, list[Endpoint]] = defaultdict(list)
    for endpoint in entries:
        if endpoint.vm in state.ignored:
            aside[endpoint.vm].append(endpoint)
            continue
        owned[endpoint.vm].append(endpoint)
        if endpoint.expired:
            state.lost.add(endpoint.vm)
    left = [e for vm in sorted(state.abandoned) for e in aside.get(vm, ()) if not e.healthy]
    forget = tuple(
        p for p in leases if not (p.vm in owned or p.vm in aside) and _forgotten(clock, t0, p)
    )
    lost = len(state.lost)
    state.lost.difference_update(confirmed)
    if not (lost or state.dead):
        return Decision(delete=left, forget=forget, wake=clock.wake)
    tallies = _tallies(owned, state)
    braked = {s for s, t in tallies.items() if t.braked(zone_loss=zone_loss)}
    out, hold = _out(clock, owned, state, braked, eased, confirmed)
    return Decision(
        out=out,
        hold=hold,
        delete=[*_delete(clock, t0, owned, state, braked, confirmed), *left],
        forget=forget,
        wake=clock.wake,
        brakes=[Brake(s, tallies[s].lost, tallies[s].members) for s in sorted(braked)],
        lost=lost,
    )


def _judge(clock: _Clock, t0: float, leases: Iterable[Pulse], latency: float) -> _State:
    state = _State()
    for pulse in leases:
        vm, base, lasts = pulse.vm, max(t0, pulse.changed), pulse.duration
        if pulse.grave is not None:
            state.graves[vm] = pulse.grave
            state.lost.add(vm)
        elif pulse.drained or not (pulse.holder or pulse.absent):
            state.ignored.add(vm)
            if pulse.holder and clock.past(base + ORPHAN_S):
                state.abandoned.add(vm)
            continue
        if pulse.absent:
            silent = dead = clock.past(base + ORPHAN_S)
        else:
            silent = clock.past(base + SILENT_BEATS * (lasts - 1) / 3)
            end = max(base + lasts + LATENCIES * latency, t0 + START_LEASES * lasts)
            dead = clock.past(end)
        if silent:
            state.lost.add(vm)
        if dead:
            state.dead[vm], state.lasts[vm] = clock.now - base, lasts
    return state


def _forgotten(clock: _Clock, t0: float, pulse: Pulse) -> bool:
    """A Lease that has no entries: a tombstone at its end, or a VM that is no more."""
    if pulse.absent:
        return False
    return clock.past(max(t0, pulse.changed, pulse.buried) + TOMBSTONE_S)


def _tallies(owned: Mapping[Vm, Sequence[Endpoint]], state: _State) -> Mapping[Scope, _Tally]:
    tallies: dict[Scope, _Tally] = defaultdict(_Tally)
    for vm, endpoints in owned.items():
        lost, zone = vm in state.lost, endpoints[0].zone
        services = {endpoint.service for endpoint in endpoints}
        if vm in state.graves:
            services.update(state.graves[vm].services)
        tallies[MESH].add(zone, lost=lost)
        for service in services:
            tallies[Scope(vm.namespace, service)].add(zone, lost=lost)
    for vm, grave in state.graves.items():
        if vm not in owned:
            lost = vm in state.lost
            tallies[MESH].add(grave.zone, lost=lost)
            for service in grave.services:
                tallies[Scope(vm.namespace, service)].add(grave.zone, lost=lost)
    return tallies


def _scope(endpoint: Endpoint) -> Scope:
    return Scope(endpoint.vm.namespace, endpoint.service)


def _brake(
    endpoint: Endpoint, braked: Collection[Scope], confirmed: Collection[Vm]
) -> Optional[Scope]:
    """Which brake holds it. A person's word counts more than our guess."""
    if endpoint.vm in confirmed:
        return None
    return next((scope for scope in (_scope(endpoint), MESH) if scope in braked), None)


def _out(
    clock: _Clock,
    owned: Mapping[Vm, Sequence[Endpoint]],
    state: _State,
    braked: Collection[Scope],
    eased: Mapping[Scope, float],
    confirmed: Collection[Vm],
) -> tuple[Sequence[Endpoint], Sequence[Held]]:
    standing: dict[Scope, int] = defaultdict(int)
    for endpoints in owned.values():
        for endpoint in endpoints:
            standing[_scope(endpoint)] += endpoint.healthy
    dead = [e for vm in state.dead if vm in owned for e in owned[vm] if e.healthy]
    # Those of confirmed VMs first, so that the last one is left to a VM that nobody buried.
    dead.sort(key=lambda e: (e.vm not in confirmed, -state.dead[e.vm], e.vm, e.name))
    out: list[Endpoint] = []
    hold: list[Held] = []
    for endpoint in dead:
        scope, brake = _scope(endpoint), _brake(endpoint, braked, confirmed)
        ends = max((eased[s] for s in (scope, MESH) if s in eased), default=-math.inf)
        if brake is not None:
            hold.append(Held(endpoint, f"brake on {brake}"))
        elif endpoint.vm not in confirmed and not clock.past(ends + state.lasts[endpoint.vm]):
            hold.append(Held(endpoint, "a brake has just ended"))
        elif endpoint.vm not in confirmed and standing[scope] <= 1:
            hold.append(Held(endpoint, f"the last healthy endpoint of {scope}"))
        else:
            standing[scope] -= 1
            out.append(endpoint)
    return out, hold


def _delete(
    clock: _Clock,
    t0: float,
    owned: Mapping[Vm, Sequence[Endpoint]],
    state: _State,
    braked: Collection[Scope],
    confirmed: Collection[Vm],
) -> Sequence[Endpoint]:
    """What has been out for long, of VMs that are still dead."""
    delete = []
    for vm, age in state.dead.items():
        for endpoint in owned.get(vm, ()):
            if endpoint.healthy:
                continue
            since = clock.now - age + ORPHAN_S
            if endpoint.expired:
                since = max(t0, endpoint.since) + DELETE_S
            if clock.past(since) and _brake(endpoint, braked, confirmed) is None:
                delete.append(endpoint)
    return sorted(delete, key=lambda e: (e.vm, e.name))
