from __future__ import annotations

from typing import Optional

import pytest
from vmoor.errors import Rejected, Unavailable, VmoorError
from vmoor.model import lease
from vmoor.model.service import Workload
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Clock, Vm, settings

NAME = "vmoor-vm1"


def spec(cluster: FakeCluster) -> dict[str, object]:
    found = cluster.there(Kind.LEASE, NAME)
    assert found is not None
    return dict(found["spec"])


def may_write(vm: Vm) -> bool:
    return lease.may_write(vm.lock.get(), vm.beat.get(), vm.clock.now())


def namesake(cluster: FakeCluster, clock: Clock, **more: str) -> Vm:
    return Vm(cluster, machine="m2", boot="b9", clock=clock, **more)


def test_the_first_act_is_a_beat() -> None:
    """With a token and nothing else, the Lease is there and held."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    assert spec(cluster)["holderIdentity"] == "m1/b1"
    assert spec(cluster)["leaseDurationSeconds"] == 10
    assert may_write(vm)


def test_a_beat_is_one_request() -> None:
    """No read before the write in the steady state."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    cluster.calls.clear()
    before = spec(cluster)["renewTime"]
    vm.clock.pass_by(3)
    settled = vm.beat_once()
    assert cluster.calls == [("replace", NAME)]
    assert spec(cluster)["renewTime"] != before
    assert settled.again == pytest.approx(3.0)


def test_nothing_is_sent_without_a_token() -> None:
    """It waits for identity and its bell."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.credentials.set(None)
    assert vm.beat_once().waiting
    assert cluster.calls == []


def test_a_restarted_agent_beats_at_once() -> None:
    """Same machine, same boot: no watching, and back to ten seconds after a last beat of sixty."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    vm.heartbeat.last_beat(2.0)
    assert spec(cluster)["leaseDurationSeconds"] == 60
    again = vm.boot("b1")
    again.beat_once()
    assert may_write(again)
    assert spec(cluster)["leaseDurationSeconds"] == 10


def test_a_lost_answer_is_recognised() -> None:
    """Our own renewTime is there: our PUT went through, the lock stays held. It looks before it
    writes again: to a version that is old the answer would be as late."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    vm.clock.pass_by(3)
    cluster.lose = lambda verb, _: Unavailable("cut") if verb == "replace" else None
    with pytest.raises(Unavailable):
        vm.beat_once()
    cluster.lose = lambda _verb, _name: None
    cluster.calls.clear()
    vm.clock.pass_by(1)
    vm.beat_once()
    assert [verb for verb, _ in cluster.calls] == ["get", "replace"]
    assert vm.lock.get().held
    assert not vm.lock.get().refused
    assert vm.beat.get().at == vm.clock.now()


def test_a_deleted_lease_is_made_anew() -> None:
    """Somebody removed it: one pass later it is there, the lock held throughout."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    cluster.remove(Kind.LEASE, NAME)
    vm.beat_once()
    assert spec(cluster)["holderIdentity"] == "m1/b1"
    assert vm.lock.get().held


def test_entry_writes_end_with_the_lease() -> None:
    """Unreachable for longer than the lease: somebody else may have the name by now."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    cluster.refuse = lambda *_: Unavailable("away")
    vm.clock.pass_by(9.9)
    assert may_write(vm)
    vm.clock.pass_by(0.2)
    assert not may_write(vm)
    with pytest.raises(Unavailable):
        vm.beat_once()
    assert not vm.lock.get().held
    cluster.refuse = lambda *_: None
    vm.beat_once()
    assert may_write(vm)


def test_the_lease_counts_from_when_the_beat_was_sent() -> None:
    """A slow answer does not prolong what the server was told."""
    cluster = FakeCluster()
    vm = Vm(cluster, address="")
    cluster.before = lambda verb, _: vm.clock.pass_by(4) if verb == "create" else None
    vm.beat_once()
    assert vm.clock.now() - vm.beat.get().at == pytest.approx(4)


def test_a_living_namesake_is_refused() -> None:
    """Its Lease moves while we look: nothing is written, and a person is told what to do."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), namesake(cluster, clock)
    first.beat_once()
    assert second.beat_once().waiting
    clock.pass_by(3)
    first.beat_once()
    with pytest.raises(Rejected, match="m1/b1") as caught:
        second.beat_once()
    assert "vm.name" in caught.value.remedy
    assert second.lock.get().refused
    assert spec(cluster)["holderIdentity"] == "m1/b1"
    cluster.calls.clear()
    with pytest.raises(Rejected):
        second.beat_once()
    assert cluster.calls == [("get", NAME)]


def test_a_dead_namesake_is_succeeded() -> None:
    """The Lease stood for the whole of its duration on our clock."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), namesake(cluster, clock)
    first.beat_once()
    waited = 0.0
    while not second.lock.get().held:
        settled = second.beat_once()
        clock.pass_by(settled.again)
        waited += settled.again
        assert waited < 20
    assert spec(cluster)["holderIdentity"] == "m2/b9"
    assert waited >= 10


def test_a_released_lease_is_taken_at_once() -> None:
    """A leave that could not delete its Lease leaves it to the next."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    cluster.edit(Kind.LEASE, NAME, lambda thing: thing["spec"].update(holderIdentity=""))
    second = namesake(cluster, clock)
    second.beat_once()
    assert may_write(second)


def test_who_lost_the_lease_stops_at_once() -> None:
    """Two agents alternately: never do both hold it, whoever beats."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), namesake(cluster, clock)
    first.beat_once()
    for _ in range(14):
        if second.lock.get().held:
            break
        clock.pass_by(second.beat_once().again)
    assert may_write(second)
    assert not may_write(first)  # its lease has lapsed by its own clock
    with pytest.raises(Rejected):
        first.beat_once()
    assert first.lock.get().refused
    for turn in range(30):
        clock.pass_by(1.5)
        one = (first, second)[turn % 2]
        try:
            one.beat_once()
        except VmoorError:
            assert one is first
        assert [may_write(first), may_write(second)] == [False, True]


def test_a_refused_agent_takes_over_when_the_other_ends() -> None:
    """No restart is needed: it keeps looking."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), namesake(cluster, clock)
    first.beat_once()
    second.beat_once()
    clock.pass_by(3)
    first.beat_once()
    looks = 0
    while not second.lock.get().held:
        looks += 1
        assert looks < 10
        try:
            second.beat_once()
        except Rejected:
            clock.pass_by(5)
    assert spec(cluster)["holderIdentity"] == "m2/b9"


def test_another_accounts_lease_is_refused() -> None:
    """Same VM name, other service account: not ours, even when nobody beats."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), namesake(cluster, clock)
    first.settings.set(settings(Workload("shop", "api", "api")))
    first.beat_once()
    clock.pass_by(500)
    with pytest.raises(Rejected, match="service account api"):
        second.beat_once()


def test_a_boot_inside_the_lease_watches_first() -> None:
    """An earlier boot of this machine may be a clone that lives; the lock says it may be us."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    after = vm.boot("b2")
    assert after.beat_once().waiting
    assert after.lock.get().rebooted
    assert not may_write(after)
    vm.clock.pass_by(10)
    after.beat_once()
    assert may_write(after)


def test_looking_rings_nobody() -> None:
    """While a foreign Lease is watched the lock does not change with each look."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    second = namesake(cluster, clock)
    second.beat_once()
    before = second.lock.get()
    clock.pass_by(1)
    second.beat_once()
    assert second.lock.get() is before


def test_no_last_beat_without_the_lock() -> None:
    """Who does not hold it writes nothing on its way out."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    second = namesake(cluster, clock)
    second.beat_once()
    cluster.calls.clear()
    second.heartbeat.last_beat(2.0)
    assert cluster.calls == []


def test_refused_writes_keep_the_lock_until_it_lapses() -> None:
    """One failed beat is no reason to stop: the lease has room for two."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    failed: Optional[VmoorError] = Unavailable("away")
    cluster.refuse = lambda *_: failed
    vm.clock.pass_by(3)
    with pytest.raises(Unavailable):
        vm.beat_once()
    assert may_write(vm)
