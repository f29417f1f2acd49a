from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmoor.model.reaper.decision import (
    DELETE_S,
    MESH,
    ORPHAN_S,
    TOMBSTONE_S,
    Decision,
    Scope,
    decide,
)
from vmoor.model.reaper.seen import Endpoint, Grave, Pulse, Vm

FEW = settings(max_examples=50, deadline=None)  # of each
NOW = 10_000.0
T0 = 0.0


@dataclass(frozen=True)
class World:
    now: float
    t0: float
    leases: tuple[Pulse, ...]
    entries: tuple[Endpoint, ...]
    confirmed: frozenset[Vm]
    zone_loss: bool
    latency: float

    def decide(self, now: float = 0.0) -> Decision:
        return decide(
            now or self.now, self.t0, self.leases, self.entries, self.confirmed, self.zone_loss,
            self.latency,
        )  # fmt: skip

    def applied(self, decision: Decision) -> World:
        """As the API server would show it once all was done."""
        out, gone = set(decision.out), set(decision.delete)
        entries = tuple(
            replace(e, healthy=False, expired=True, since=self.now) if e in out else e
            for e in self.entries
            if e not in gone
        )
        lost = defaultdict(set)
        for e in gone:
            lost[e.vm].add(e.service)
        forgotten = set(decision.forget)
        leases = tuple(
            replace(p, grave=p.grave or Grave(tuple(sorted(lost[p.vm]))), buried=self.now)
            if p.vm in lost and not p.drained
            else p
            for p in self.leases
            if p not in forgotten
        )
        return replace(self, entries=entries, leases=leases)


def vm(number: int) -> Vm:
    return Vm("shop", f"vm{number:02}")


def pulse(number: int, silent_for: float = 0.0, **more: object) -> Pulse:
    made = Pulse(vm(number), holder=f"m{number}/b", renewed="r", changed=NOW - silent_for)
    return replace(made, **more)  # type: ignore[arg-type]


def endpoint(
    number: int, service: str = "web", *, healthy: bool = True, **more: object
) -> Endpoint:
    made = Endpoint(vm(number), f"{service}.vm{number:02}", service, healthy=healthy)
    return replace(made, **more)  # type: ignore[arg-type]


def fleet(
    count: int, dead: int, *, zones: Sequence[str] = ("",), confirmed: int = 0, **more: bool
) -> World:
    """`dead` of `count` VMs have been silent for 20 s; zones go round, the dead come first."""
    return World(
        NOW, T0,
        tuple(pulse(n, 20.0 if n < dead else 1.0) for n in range(count)),
        tuple(endpoint(n, zone=zones[n % len(zones)]) for n in range(count)),
        frozenset(vm(n) for n in range(confirmed)),
        zone_loss=more.get("zone_loss", True), latency=0.0,
    )  # fmt: skip


def names(endpoints: Sequence[Endpoint]) -> list[str]:
    return [e.vm.name for e in endpoints]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    leases, entries = [], []
    for n in range(draw(st.integers(0, 9))):
        age = draw(st.sampled_from([0, 1, 4, 4.5, 5, 9, 10, 10.2, 11, 30, 700, 4000, 9000]))
        zone = draw(st.sampled_from(["", "eu/a", "eu/b", "eu/c"]))
        kind = draw(st.sampled_from(["lives"] * 6 + ["drained", "empty", "grave", "absent"]))
        p = pulse(n, float(age), duration=float(draw(st.sampled_from([10, 10, 10, 31, 60, 120]))))
        if kind == "drained":
            p = replace(p, drained=True)
        elif kind == "empty":
            p = replace(p, holder="")
        elif kind == "grave":
            p = replace(p, grave=Grave(("web",), zone), buried=NOW - draw(st.floats(0, 5000)))
        elif kind == "absent":
            p = replace(p, holder="", renewed="", absent=True)
        leases.append(p)
        for service in draw(st.sets(st.sampled_from(["web", "api"]))):
            says = draw(st.sampled_from(["True", "True", "True", "False", "expired"]))
            e = endpoint(n, service, healthy=says == "True", zone=zone)
            if says == "expired":
                e = replace(e, expired=True, since=NOW - draw(st.floats(0, 2000)))
            entries.append(e)
    t0 = NOW - draw(st.sampled_from([0.0, 5.0, 19.0, 21.0, 300.0, 5000.0]))
    known = sorted({p.vm for p in leases})
    confirmed = draw(st.sets(st.sampled_from(known))) if known else set()
    zone_loss, latency = draw(st.booleans()), draw(st.sampled_from([0.0, 0.0, 0.01, 2.0]))
    return World(NOW, t0, tuple(leases), tuple(entries), frozenset(confirmed), zone_loss, latency)


@given(worlds())
@FEW
def test_nothing_goes_that_is_not_dead(world: World) -> None:
    """Every removal is of a VM whose Lease stood for all of its duration, on our own clock."""
    by_vm = {p.vm: p for p in world.leases}
    decision = world.decide()
    for e in (*decision.out, *decision.delete, *(h.endpoint for h in decision.hold)):
        p = by_vm[e.vm]
        age = world.now - max(world.t0, p.changed)
        if p.absent or (p.drained and not p.grave):
            assert age > ORPHAN_S
            assert p.absent or e in decision.delete
        else:
            assert age > p.duration + 3 * world.latency
            assert world.now - world.t0 > 2 * p.duration
            assert p.grave is not None or p.holder


@given(worlds())
@FEW
def test_never_more_than_the_brake_allows(world: World) -> None:
    """What was taken out and what is being taken out stay within the share, in every scope."""
    world = replace(world, zone_loss=False)
    decision = world.decide()
    ignored = {p.vm for p in world.leases if not p.grave and not p.absent
               and (p.drained or not p.holder)}  # fmt: skip
    members: dict[Scope, set[Vm]] = defaultdict(set)
    taken: dict[Scope, set[Vm]] = defaultdict(set)
    going = {e.vm for e in (*decision.out, *decision.delete)} - ignored
    out_before = {e.vm for e in world.entries if e.expired and e.vm not in ignored}
    for e in world.entries:
        if e.vm in ignored:
            continue
        for scope in (MESH, Scope("shop", e.service)):
            members[scope].add(e.vm)
            if e.vm in (going | out_before) - world.confirmed:
                taken[scope].add(e.vm)
    for p in world.leases:
        if p.grave:
            for scope in (MESH, *(Scope("shop", s) for s in p.grave.services)):
                members[scope].add(p.vm)
                if p.vm not in world.confirmed:
                    taken[scope].add(p.vm)
    acted = {(MESH, Scope("shop", e.service)) for e in (*decision.out, *decision.delete)
             if e.vm not in world.confirmed | ignored}  # fmt: skip
    for scope in {scope for scopes in acted for scope in scopes}:
        assert len(taken[scope]) <= max(2, int(0.3 * len(members[scope]))), scope


@given(worlds())
@FEW
def test_silence_never_takes_the_last_endpoint(world: World) -> None:
    """Of what was healthy, one stays in each service, unless a person confirmed its death."""
    decision = world.decide()
    ignored = {p.vm for p in world.leases if not p.grave and not p.absent
               and (p.drained or not p.holder)}  # fmt: skip
    for service in {e.service for e in decision.out if e.vm not in world.confirmed}:
        healthy = {e for e in world.entries
                   if e.service == service and e.healthy and e.vm not in ignored}  # fmt: skip
        assert healthy - set(decision.out), service


@given(worlds())
@FEW
def test_it_is_idempotent_and_converges(world: World) -> None:
    """Asked again it says the same; once that is done, nothing of it is left to do."""
    decision = world.decide()
    assert world.decide() == decision
    after = world.applied(decision)
    again = after.decide()
    assert not again.out
    assert not set(names(again.delete)) & set(names(decision.out))
    assert not again.forget or not decision.forget


@given(worlds())
@FEW
def test_nothing_flips_before_it_wakes(world: World) -> None:
    """Until `wake` it would say the same; who sleeps so long misses nothing."""
    decision = world.decide()
    end = min(decision.wake, world.now + 20_000)
    for share in (0.0, 0.3, 0.7, 1.0):
        later = world.decide(world.now + share * (end - world.now))
        assert (later.out, later.hold, later.delete, later.forget, later.brakes) == (
            decision.out, decision.hold, decision.delete, decision.forget, decision.brakes,
        )  # fmt: skip
    assert decision.wake >= world.now


@given(worlds())
@FEW
def test_after_a_gap_everything_is_alive(world: World) -> None:
    """With a watch that has just come back nothing is decided, whatever was before."""
    blind = replace(world, t0=world.now)
    decision = blind.decide()
    assert not decision.out
    assert not decision.delete
    assert not decision.forget


def test_a_dead_vm_is_out_within_its_lease() -> None:
    """Not before 10 s without a beat, and right after."""
    world = replace(fleet(4, 0), leases=(pulse(0, 10.0), *(pulse(n) for n in (1, 2, 3))))
    early = world.decide()
    assert (len(early.out), early.wake) == (0, NOW)
    assert names(world.decide(NOW + 0.001).out) == ["vm00"]


def test_a_slow_server_is_waited_for() -> None:
    """Three times our own write latency on top: the VM's beat may be on its way as long."""
    world = replace(fleet(4, 0), leases=(pulse(0, 12.0), *(pulse(n) for n in (1, 2, 3))))
    assert not replace(world, latency=1.0).decide().out
    assert replace(world, latency=0.5).decide().out


def test_the_lease_says_how_long() -> None:
    """A VM that announced a restart has the 60 s that stand in its Lease."""
    world = fleet(4, 1)
    said = (replace(world.leases[0], duration=60.0), *world.leases[1:])
    assert not replace(world, leases=said).decide().out


@pytest.mark.parametrize(
    ("count", "dead", "out"),
    [(2, 2, 1), (3, 2, 2), (3, 3, 0), (4, 3, 0), (10, 2, 2), (10, 3, 3), (10, 4, 0), (10, 6, 0),
     (100, 30, 30), (100, 31, 0)],
)  # fmt: skip
def test_how_many_may_go(count: int, dead: int, out: int) -> None:
    """Two always, but never the last; 30 % of many; none when it is more: then it may be us."""
    assert len(fleet(count, dead).decide().out) == out


def test_the_brake_is_told_with_its_numbers() -> None:
    """Each held endpoint has its reason, each braked scope how many of how many are lost."""
    decision = fleet(10, 6).decide()
    assert decision.brakes == [(MESH, 6, 10), (Scope("shop", "web"), 6, 10)]
    assert len(decision.hold) == 6
    assert {h.reason for h in decision.hold} == {"brake on shop/web"}


def test_silence_brakes_before_death() -> None:
    """After one and a half intervals a VM counts: the brake is there when the first one is due."""
    leases = tuple(pulse(n, 5.0 if n else 11.0) for n in range(10))
    decision = replace(fleet(10, 0), leases=leases).decide()
    assert not decision.out
    assert names([h.endpoint for h in decision.hold]) == ["vm00"]


def test_it_leaves_the_brake_by_itself() -> None:
    """VMs beat again, or more come: no memory keeps it on."""
    held = fleet(10, 4)
    assert held.decide().brakes
    back = tuple(replace(p, changed=NOW - 1) if p.vm == vm(3) else p for p in held.leases)
    assert len(replace(held, leases=back).decide().out) == 3
    assert len(fleet(14, 4).decide().out) == 4


def test_who_comes_back_last_has_a_lease_more() -> None:
    """A fault that silenced many ends: the first to beat must not make the last ones dead."""
    world = fleet(10, 2)
    leases = tuple(replace(p, changed=NOW + 5) if p.vm > vm(1) else p for p in world.leases)
    args = (T0, leases, world.entries, (), True, 0.0)
    eased = {Scope("shop", "web"): NOW - 4.0}
    decision = decide(NOW, *args, eased)
    assert not decision.out
    assert {h.reason for h in decision.hold} == {"a brake has just ended"}
    assert decision.wake <= NOW + 6.0
    assert len(decide(NOW + 6.1, *args, eased).out) == 2
    confirmed = (T0, leases, world.entries, {vm(0)}, True, 0.0)
    assert names(decide(NOW, *confirmed, eased).out) == ["vm00"]


def test_what_is_out_already_still_counts() -> None:
    """Three of ten each hour would be all of them: the expired and the buried fill the share."""
    world = fleet(10, 6)
    entries = tuple(
        replace(e, healthy=False, expired=True, since=NOW - 5) if e.vm < vm(3) else e
        for e in world.entries
    )
    assert not replace(world, entries=entries).decide().out
    graves = tuple(
        replace(p, grave=Grave(("web",)), buried=NOW - 5) if p.vm < vm(3) else p
        for p in world.leases
    )
    left = tuple(e for e in world.entries if e.vm >= vm(3))
    assert not replace(world, leases=graves, entries=left).decide().out


def test_a_zone_may_be_lost() -> None:
    """One of three zones is 33 %, but all others live: it goes, unless that is switched off."""
    world = fleet(9, 0, zones=("eu/a", "eu/b", "eu/c"))
    dead = tuple(replace(p, changed=NOW - 20) if n % 3 == 0 else p
                 for n, p in enumerate(world.leases))  # fmt: skip
    world = replace(world, leases=dead)
    assert names(world.decide().out) == ["vm00", "vm03", "vm06"]
    assert not replace(world, zone_loss=False).decide().out


def test_a_zone_that_is_all_there_is_does_not_count() -> None:
    """Without two VMs elsewhere nobody speaks for the mesh; no locality is no zone."""
    assert not fleet(5, 4, zones=("eu/a",) * 4 + ("eu/b",)).decide().out
    assert not fleet(10, 6, zones=("",)).decide().out


def test_a_persons_word_counts_more() -> None:
    """Confirmed VMs go, the last endpoint too; they no longer hold the brake for the others."""
    assert len(fleet(10, 10, confirmed=10).decide().out) == 10
    mixed = fleet(10, 6, confirmed=4).decide()
    assert len(mixed.out) == 6
    assert not mixed.brakes


def test_a_confirmed_vm_must_be_dead() -> None:
    """The word does not kill: who beats stays."""
    assert not fleet(10, 0, confirmed=3).decide().out


def test_the_longest_silent_go_first() -> None:
    """Of two dead ones the one that beat last stays as the last; names decide a tie."""
    leases = (pulse(0, 20.0), pulse(1, 30.0))
    decision = replace(fleet(2, 2), leases=leases).decide()
    assert names(decision.out) == ["vm01"]
    assert decision.hold[0].reason == "the last healthy endpoint of shop/web"
    assert names(fleet(2, 2).decide().out) == ["vm00"]


@pytest.mark.parametrize("more", [{"drained": True}, {"holder": ""}])
def test_who_went_on_purpose_is_left_alone(more: dict[str, object]) -> None:
    """A drained VM and an empty holder are neither dead nor do they count."""
    leases = tuple(pulse(n, 3000.0, **more) for n in range(3))
    world = replace(fleet(3, 0), leases=leases)
    entries = tuple(replace(e, healthy=False) for e in world.entries)
    decision = replace(world, entries=entries).decide()
    assert not (decision.out or decision.delete or decision.brakes or decision.lost)


def test_what_a_leave_kept_stays() -> None:
    """leave.keep_entries: nobody holds the Lease, and both stay for the day of the return."""
    leases = tuple(pulse(n, 50_000.0, holder="") for n in range(3))
    entries = tuple(replace(e, healthy=False) for e in fleet(3, 0).entries)
    decision = replace(fleet(3, 0), leases=leases, entries=entries, t0=-90_000.0).decide()
    assert (decision.out, decision.delete, decision.forget) == ((), [], ())


def test_a_drained_vm_that_never_returns_is_cleaned_up() -> None:
    """Drained and then terminated: out it is already; an hour later its entries go."""
    world = fleet(4, 0)
    leases = (pulse(0, ORPHAN_S + 1, drained=True), *world.leases[1:])
    entries = (endpoint(0, healthy=False), *world.entries[1:])
    decision = replace(world, leases=leases, entries=entries).decide()
    assert names(decision.delete) == ["vm00"]
    assert decision.lost == 0
    early = (pulse(0, ORPHAN_S - 1, drained=True), *world.leases[1:])
    assert not replace(world, leases=early, entries=entries).decide().delete


def test_entries_go_ten_minutes_later() -> None:
    """Out first; deleted when they have been out for 600 s, and their VM is still dead."""
    dead = pulse(0, 5000.0)
    expired = endpoint(0, healthy=False, expired=True, since=NOW - DELETE_S + 1)
    world = replace(fleet(4, 0), leases=(dead, *fleet(4, 0).leases[1:]),
                    entries=(expired, *fleet(4, 0).entries[1:]))  # fmt: skip
    assert world.decide().delete == []
    assert names(world.decide(NOW + 1.1).delete) == ["vm00"]
    back = replace(world, leases=fleet(4, 0).leases)
    assert not back.decide(NOW + 1.1).delete


def test_a_tombstone_counts_for_an_hour() -> None:
    """Then the Lease goes, and with it the last trace."""
    grave = pulse(0, 5000.0, grave=Grave(("web",)), buried=NOW - TOMBSTONE_S + 1)
    world = replace(fleet(4, 0), leases=(grave, *fleet(4, 0).leases[1:]),
                    entries=fleet(4, 0).entries[1:])  # fmt: skip
    assert world.decide().lost == 1
    assert world.decide().forget == ()
    assert world.decide(NOW + 1.1).forget == (grave,)


def test_entries_without_a_lease_are_left_for_an_hour() -> None:
    """A deleted Lease proves nothing; what nobody vouches for is out after an hour."""
    absent = pulse(0, ORPHAN_S - 1, holder="", renewed="", absent=True)
    world = replace(fleet(4, 0), leases=(absent, *(pulse(n, -1.0) for n in (1, 2, 3))))
    assert not world.decide().out
    assert names(world.decide(NOW + 1.1).out) == ["vm00"]


def test_what_was_sick_when_its_vm_died_goes_after_an_hour() -> None:
    """It was never taken out by us, so nothing else would ever remove it."""
    world = fleet(4, 0)
    leases = (pulse(0, ORPHAN_S + 1), *world.leases[1:])
    entries = (endpoint(0, healthy=False), *world.entries[1:])
    assert names(replace(world, leases=leases, entries=entries).decide().delete) == ["vm00"]


def test_ten_thousand_vms_are_decided_in_time() -> None:
    """100 ms for 30 000 entries, with a third of them dead; three times that on a busy machine."""
    count = 10_000
    leases = tuple(pulse(n, 200.0 if n % 4 == 0 else 1.0) for n in range(count))
    services = ("web", "api", "db")
    entries = tuple(endpoint(n, s, zone=f"eu/{n % 3}") for n in range(count) for s in services)
    began = time.process_time()
    decision = decide(NOW, T0, leases, entries, (), True)
    took = time.process_time() - began
    assert len(decision.out) == 7500
    assert took < 0.3, took


def test_what_a_drained_vm_left_goes_and_no_more() -> None:
    """It went on purpose and was terminated: no tombstone, and what is healthy is not touched."""
    vms = [Vm("shop", f"vm{n:02}") for n in range(8)]
    pulses = [Pulse(vm, holder=f"m{n}/b", renewed="r", changed=NOW) for n, vm in enumerate(vms)]
    gone = replace(pulses[3], changed=NOW - 4000, drained=True)
    left = Endpoint(gone.vm, "web.vm03", "web")
    kept = [Endpoint(vm, f"api.{vm.name}", "api", healthy=True) for vm in (vms[0], gone.vm)]
    world = World(
        NOW, T0, (*pulses[:3], gone, *pulses[4:]), (*kept, left), frozenset(),
        zone_loss=False, latency=0.0,
    )  # fmt: skip
    decision = world.decide()
    assert (decision.out, decision.delete) == ((), [left])
    assert world.applied(decision).decide().out == ()
