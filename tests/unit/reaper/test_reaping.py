from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vmoor.errors import Rejected, Unavailable, VmoorError
from vmoor.model import entry, lease
from vmoor.model.reaper import MANAGER, seen
from vmoor.ports import Kind
from vmoor.reaper import reaping

from tests.fakes.cluster import FakeCluster
from tests.unit.reaper.world import Reaper, SimVm, pass_by
from tests.unit.registration.world import Clock

EXPIRED = ("False", "LeaseExpired")
LIVES = ("True", "Said")


class Mesh:
    def __init__(self, count: int) -> None:
        self.cluster, self.clock = FakeCluster(), Clock()
        self.vms = tuple(SimVm(self.cluster, self.clock, f"vm{n}") for n in range(count))
        for vm in self.vms:
            vm.beat()
            vm.serve("web")
        self.reaper = Reaper(self.cluster, self.clock)
        self.pass_by(30, self.vms)
        self.cluster.calls.clear()

    def pass_by(self, seconds: float, beating: tuple[SimVm, ...]) -> None:
        pass_by(self.clock, seconds, self.reaper, beating=beating)

    def writes(self) -> list[tuple[str, str]]:
        return [call for call in self.cluster.calls
                if call[0] in ("status", "delete") and call[1] != MANAGER]  # fmt: skip


def test_a_silent_vm_is_out_and_all_others_stay() -> None:
    """One write, to the entry of the dead VM, when its lease has passed."""
    mesh = Mesh(4)
    dead, *living = mesh.vms
    mesh.pass_by(10, tuple(living))
    assert dead.health() == LIVES
    mesh.pass_by(2, tuple(living))
    assert dead.health() == EXPIRED
    assert mesh.writes() == [("status", "web.vm0")]
    said = entry.health(mesh.cluster.there(Kind.ENTRY, "web.vm0") or {})
    assert said is not None
    assert "no beat since 20" in said["message"]


def test_conditions_of_others_are_carried_over() -> None:
    """The list is atomic in the CRD: what is not written again is gone."""
    mesh = Mesh(4)
    other = {"type": "Checked", "status": "True"}
    mesh.cluster.edit(
        Kind.ENTRY, "web.vm0", lambda thing: thing["status"]["conditions"].append(other)
    )
    mesh.pass_by(14, mesh.vms[1:])
    thing = mesh.cluster.there(Kind.ENTRY, "web.vm0") or {}
    assert other in thing["status"]["conditions"]
    assert mesh.vms[0].health() == EXPIRED


def test_a_beat_that_the_watch_has_not_told_yet_is_seen() -> None:
    """The Lease is read again before the write: who beats meanwhile stays."""
    mesh = Mesh(4)
    mesh.pass_by(10, mesh.vms[1:])
    mesh.clock.pass_by(1)
    mesh.reaper.election.reconcile()
    mesh.reaper.look()
    mesh.vms[0].beat()
    mesh.reaper.reaping.reconcile()
    assert mesh.writes() == []


def test_who_wrote_in_between_wins() -> None:
    """Between the reaper's read and its write the agent writes: a conflict, judged anew."""
    mesh = Mesh(4)

    def meddle(verb: str, name: str) -> None:
        if verb == "status":
            mesh.cluster.before = lambda *_: None
            mesh.vms[0].serve("web")

    mesh.cluster.before = meddle
    mesh.pass_by(10, mesh.vms[1:])
    mesh.vms[0].beat()
    mesh.pass_by(4, mesh.vms[1:])
    assert mesh.vms[0].health() == LIVES


def test_a_vm_that_comes_back_is_left_alone() -> None:
    """Its agent lifts LeaseExpired after a beat; nothing of it is deleted."""
    mesh = Mesh(4)
    mesh.pass_by(100, mesh.vms[1:])
    mesh.vms[0].beat()
    mesh.vms[0].serve("web")
    mesh.pass_by(1000, mesh.vms)
    assert mesh.vms[0].health() == LIVES
    assert mesh.writes()[:1] == [("status", "web.vm0")]
    assert {verb for verb, _ in mesh.writes()} == {"status"}


def test_what_is_left_of_a_dead_vm_goes_in_order() -> None:
    """Out, after ten minutes the entry, with a tombstone on the Lease; the Lease an hour later."""
    mesh = Mesh(4)
    mesh.pass_by(600, mesh.vms[1:])
    assert mesh.vms[0].health() == EXPIRED
    mesh.pass_by(20, mesh.vms[1:])
    assert mesh.vms[0].health() == ("", "")
    left = mesh.cluster.there(Kind.LEASE, "vmoor-vm0") or {}
    assert '"web"' in left["metadata"]["annotations"][lease.TOMBSTONE]
    mesh.pass_by(3500, mesh.vms[1:])
    assert mesh.cluster.there(Kind.LEASE, "vmoor-vm0") is not None
    mesh.pass_by(200, mesh.vms[1:])
    assert mesh.cluster.there(Kind.LEASE, "vmoor-vm0") is None
    assert mesh.writes() == [("status", "web.vm0"), ("delete", "web.vm0"),
                             ("delete", "vmoor-vm0")]  # fmt: skip


def test_a_drained_vm_that_was_terminated_leaves_no_tombstone() -> None:
    """A scale-in is no loss that the brake should count."""
    mesh = Mesh(4)
    mesh.cluster.edit(
        Kind.LEASE, "vmoor-vm0",
        lambda thing: thing["metadata"].update(annotations={seen.DRAINED: "root 2026"}),
    )  # fmt: skip
    mesh.vms[0].serve("web", healthy=False)
    mesh.pass_by(3620, mesh.vms[1:])
    assert mesh.vms[0].health() == ("", "")
    mesh.pass_by(8, mesh.vms[1:])
    assert mesh.cluster.there(Kind.LEASE, "vmoor-vm0") is None
    assert mesh.writes() == [("status", "web.vm0"), ("delete", "web.vm0"),
                             ("delete", "vmoor-vm0")]  # fmt: skip


def test_a_beat_removes_the_tombstone() -> None:
    """A VM that returns after its entries were deleted is one like any other."""
    mesh = Mesh(4)
    mesh.pass_by(630, mesh.vms[1:])
    mesh.vms[0].beat()
    mesh.vms[0].serve("web")
    mesh.pass_by(10, mesh.vms)
    pulse = mesh.reaper.leases.get().things["shop", "vmoor-vm0"]
    assert pulse.grave is None
    mesh.pass_by(14, mesh.vms[1:])
    assert mesh.vms[0].health() == EXPIRED


def test_an_outage_of_the_api_server_removes_nobody() -> None:
    """Nobody can beat, nobody is seen; nor right after it, when nobody has beaten yet."""
    mesh = Mesh(3)
    away: Optional[VmoorError] = Unavailable("away")
    mesh.cluster.refuse = lambda *_: away
    for _ in range(150):
        mesh.clock.pass_by(2)
        with pytest.raises(Unavailable):
            mesh.reaper.election.reconcile()
        with pytest.raises(Unavailable):
            mesh.reaper.look()
        mesh.reaper.reaping.reconcile()
    mesh.cluster.refuse = lambda *_: None
    mesh.pass_by(20, ())
    assert mesh.writes() == []
    mesh.pass_by(100, mesh.vms)
    assert mesh.writes() == []


def test_a_watch_that_is_silent_is_a_gap() -> None:
    """A server that hangs ends no watch: without the leader's own renewals nothing is decided."""
    mesh = Mesh(2)
    for _ in range(10):
        mesh.clock.pass_by(2)
        mesh.reaper.election.reconcile()
        mesh.reaper.reaping.reconcile()
    assert mesh.writes() == []
    mesh.pass_by(18, ())
    assert mesh.writes() == []
    mesh.pass_by(6, ())
    assert mesh.writes() == [("status", "web.vm0")]


def test_a_reaper_that_stood_still_acts_on_nothing_it_knew() -> None:
    """Paused for a minute: it is no leader any more, and its watch has a gap."""
    mesh = Mesh(3)
    mesh.clock.pass_by(60)
    assert mesh.reaper.reaping.reconcile().waiting
    mesh.pass_by(10, mesh.vms)
    assert mesh.writes() == []


def test_most_of_the_fleet_is_not_removed() -> None:
    """Six of ten: told once and published, nothing written; over when they beat."""
    mesh = Mesh(10)
    mesh.pass_by(60, mesh.vms[:4])
    assert mesh.writes() == []
    assert {(str(b.scope), b.lost, b.members) for b in mesh.reaper.brakes.get()} == {
        ("the mesh", 6, 10), ("shop/web", 6, 10),
    }  # fmt: skip
    mesh.reaper.publishing.reconcile()
    assert "brake on shop/web: 6 of 10" in mesh.reaper.told[-1]
    mesh.pass_by(6, mesh.vms)
    assert mesh.reaper.brakes.get() == ()


def test_the_last_to_come_back_is_not_dead() -> None:
    """An outage of the agents' way to the server, which the reaper does not share: nobody goes,
    also not who beats a few seconds after the others."""
    mesh = Mesh(6)
    mesh.pass_by(40, ())
    for vm in mesh.vms[1:]:
        vm.beat()
    mesh.pass_by(8, mesh.vms[1:])
    assert mesh.reaper.brakes.get() == ()
    assert mesh.writes() == []
    mesh.pass_by(6, mesh.vms[1:])
    assert mesh.writes() == [("status", "web.vm0")]


def test_a_confirmed_death_is_believed_until_the_next_beat() -> None:
    """`vmoor fleet confirm` names holder and beat."""
    mesh = Mesh(10)
    mesh.pass_by(20, mesh.vms[:4])

    def confirm(thing: dict[str, object]) -> None:
        spec, meta = thing["spec"], thing["metadata"]
        assert isinstance(spec, dict)
        assert isinstance(meta, dict)
        mark = seen.confirmation(spec["renewTime"], spec["holderIdentity"])
        meta["annotations"] = {seen.CONFIRMED: mark}

    for n in range(4, 10):
        mesh.cluster.edit(Kind.LEASE, f"vmoor-vm{n}", confirm)
    mesh.pass_by(4, mesh.vms[:4])
    assert len(mesh.writes()) == 6
    mesh.vms[5].beat()
    mesh.reaper.look()
    assert not mesh.reaper.leases.get().things["shop", "vmoor-vm5"].confirmed


def test_a_deleted_lease_proves_nothing() -> None:
    """Its entries stay for an hour; told by nobody's beat they are out then."""
    mesh = Mesh(4)
    mesh.cluster.remove(Kind.LEASE, "vmoor-vm0")
    mesh.pass_by(3590, mesh.vms[1:])
    assert mesh.writes() == []
    mesh.pass_by(30, mesh.vms[1:])
    assert mesh.writes() == [("status", "web.vm0")]


def test_what_does_not_carry_the_owner_mark_is_not_seen() -> None:
    """An entry or a Lease without all three labels is nobody's of ours."""
    mesh = Mesh(4)
    mesh.cluster.edit(
        Kind.ENTRY, "web.vm0", lambda t: t["metadata"]["labels"].pop(entry.SERVICE_ACCOUNT)
    )
    mesh.pass_by(5000, mesh.vms[1:])
    assert mesh.vms[0].health() == LIVES
    assert ("delete", "web.vm0") not in mesh.writes()


class WrongClock(Clock):
    """Another machine's: the same time goes by, and its wall clock jumps."""

    def __init__(self, clock: Clock) -> None:
        self.off, self._clock = 0.0, clock

    def now(self) -> float:
        return self._clock.now()

    def wall(self) -> float:
        return self._clock.wall() + self.off


JUMPS = st.lists(st.floats(-86_400, 86_400), min_size=6, max_size=6)


@given(st.lists(JUMPS, min_size=5, max_size=5))
@settings(max_examples=20, deadline=None)
def test_a_clock_that_jumps_proves_nothing(jumps: list[list[float]]) -> None:
    """Of either of two reapers or of any VM, by up to a day: the leader leads on, who beats stays,
    who is silent goes in time."""
    cluster, clock = FakeCluster(), Clock()
    clocks = [WrongClock(clock) for _ in range(6)]
    vms = tuple(SimVm(cluster, clocks[n], f"vm{n}") for n in range(4))
    reapers = [Reaper(cluster, clocks[4 + n], f"r{n}") for n in range(2)]
    for vm in vms:
        vm.beat()
        vm.serve("web")
    pass_by(clock, 22, *reapers, beating=vms)
    for each in jumps:
        for wrong, off in zip(clocks, each):
            wrong.off = off
        pass_by(clock, 6, *reapers, beating=vms)
        assert [reaper.leadership.get().leader for reaper in reapers] == [True, False]
    assert [vm.health() for vm in vms] == [LIVES] * 4
    pass_by(clock, 12, *reapers, beating=vms[1:])
    assert [vm.health() for vm in vms] == [EXPIRED, *[LIVES] * 3]


def test_a_clock_that_jumps_makes_no_leader() -> None:
    """The next one waits for the whole lease of a leader that was stopped."""
    cluster, clock = FakeCluster(), Clock()
    wrong = WrongClock(clock)
    first, second = Reaper(cluster, clock, "r1"), Reaper(cluster, wrong, "r2")
    pass_by(clock, 10, first, second)
    wrong.off = 3_600.0
    pass_by(clock, 12, second)
    assert not second.leadership.get().leader
    pass_by(clock, 6, second)
    assert second.leadership.get().leader


def test_only_one_of_two_reapers_acts() -> None:
    """The second takes over when the first is gone for 15 s, and has watched all the time."""
    mesh = Mesh(4)
    first, second = mesh.reaper, Reaper(mesh.cluster, mesh.clock, "r2")
    for _ in range(30):
        pass_by(mesh.clock, 2, first, second, beating=mesh.vms)
        now = mesh.clock.now()
        assert [r.leadership.get().acts(now) for r in (first, second)] == [True, False]
    waited = 0
    while not second.leadership.get().leader:
        pass_by(mesh.clock, 1, second, beating=mesh.vms)
        waited += 1
    assert 15 <= waited <= 18
    assert not first.leadership.get().acts(mesh.clock.now())


def test_a_reaper_that_ends_hands_over_at_once() -> None:
    """Its Lease is nobody's."""
    mesh = Mesh(2)
    mesh.reaper.election.release()
    second = Reaper(mesh.cluster, mesh.clock, "r2")
    second.election.reconcile()
    assert second.leadership.get().leader
    assert mesh.reaper.reaping.reconcile().waiting


def test_a_leader_that_cannot_renew_acts_no_more() -> None:
    """After 10 s, 5 before anybody else may."""
    mesh = Mesh(4)
    lost: Optional[VmoorError] = Unavailable("away")
    mesh.cluster.refuse = lambda verb, name: lost if name == MANAGER else None
    for _ in range(6):
        mesh.clock.pass_by(2)
        with pytest.raises(Unavailable):
            mesh.reaper.election.reconcile()
    assert not mesh.reaper.leadership.get().leader


def test_it_paces_its_writes() -> None:
    """Twenty-five objects in half a second, however many are due."""
    mesh = Mesh(100)
    mesh.pass_by(10, mesh.vms[28:])
    mesh.clock.pass_by(1)
    for vm in mesh.vms[28:]:
        vm.beat()
    settled = mesh.reaper.turn()
    assert len(mesh.writes()) == 25
    assert settled.again == pytest.approx(0.5)


def test_one_bad_object_does_not_keep_the_others() -> None:
    """The server refuses one write: the others are done, and the refusal is told."""
    mesh = Mesh(8)
    mesh.cluster.refuse = lambda verb, name: (
        Rejected("cannot patch web.vm0") if (verb, name) == ("status", "web.vm0") else None
    )
    mesh.pass_by(10, mesh.vms[2:])
    mesh.clock.pass_by(1)
    for vm in mesh.vms[2:]:
        vm.beat()
    settled = mesh.reaper.turn()
    assert (settled.wrong, "cannot patch web.vm0" in settled.words) == (True, True)
    assert [vm.health() for vm in mesh.vms[:2]] == [LIVES, EXPIRED]


def test_many_bad_objects_do_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are touched in one pass are refused again and again."""
    monkeypatch.setattr(reaping, "BATCH", 2)
    mesh = Mesh(14)
    mesh.cluster.refuse = lambda verb, name: (
        Rejected(f"cannot patch {name}") if verb == "status" and name != "web.vm3" else None
    )
    mesh.pass_by(14, mesh.vms[4:])
    assert [vm.health() for vm in mesh.vms[:4]] == [LIVES, LIVES, LIVES, EXPIRED]


def test_the_last_endpoint_stays_though_the_cache_knows_another() -> None:
    """The watch of the entries is silent, the other one went meanwhile."""
    mesh = Mesh(2)
    stale = mesh.reaper.entries.get()
    silent, other = mesh.vms
    mesh.pass_by(10, (other,))
    have = mesh.cluster.there(Kind.ENTRY, "web.vm1")
    assert have is not None
    other.say(have, healthy=False)
    mesh.clock.pass_by(2)
    other.beat()
    mesh.reaper.look()
    mesh.reaper.entries.set(stale)
    mesh.reaper.election.reconcile()
    mesh.reaper.reaping.reconcile()
    assert silent.health() == LIVES


def test_the_interval_grows_with_the_fleet() -> None:
    """Published for agents; 3 s while the fleet is small."""
    mesh = Mesh(2)
    mesh.reaper.publishing.reconcile()
    published = mesh.cluster.there(Kind.LEASE, "vmoor-fleet") or {}
    assert published["metadata"]["annotations"]["vmoor.io/interval"] == "3"
    assert lease.INTERVAL_S == 3.0
