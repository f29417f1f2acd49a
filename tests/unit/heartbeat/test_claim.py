"""Two VMs of one address: the second waits until the first is really gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vmoor.config.settings import MeshSource
from vmoor.errors import Forbidden, Unavailable, VmoorError
from vmoor.model import claim, lease
from vmoor.model.claim import ADDRESS, State
from vmoor.model.lease import TOMBSTONE
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Clock, Vm, settings

FIRST, SECOND = "vmoor-vm1", "vmoor-vm2"
WEB = "web.vm1"


def other(cluster: FakeCluster, clock: Clock, name: str = "vm2", machine: str = "m2") -> Vm:
    return Vm(cluster, name=name, machine=machine, boot="b9", clock=clock)


def address(cluster: FakeCluster, name: str) -> str:
    found = cluster.there(Kind.LEASE, name)
    assert found is not None
    return str(found["metadata"]["labels"].get(ADDRESS, ""))


def state(vm: Vm) -> State:
    return vm.claimed.get().under("10.0.0.1", vm.lock.get())


def healthy(cluster: FakeCluster, name: str) -> tuple[str, str]:
    thing = cluster.there(Kind.ENTRY, name)
    assert thing is not None
    (found,) = thing["status"]["conditions"]
    return found["status"], found["reason"]


def lists(cluster: FakeCluster) -> int:
    return sum(verb == "list" and ADDRESS in name for verb, name in cluster.calls)


def until_claimed(vm: Vm, limit: float, *living: Vm) -> float:
    """Seconds until it is proven, with a second of pause between two looks."""
    waited = 0.0
    while state(vm) is not State.OURS:
        vm.clock.pass_by(1)
        waited += 1
        for each in (vm, *living):
            each.beat_once()
        assert waited < limit
    return waited


def lapse(vm: Vm) -> None:
    """Its next beat begins a new term."""
    gone: VmoorError = Unavailable("away")
    vm.cluster.refuse = lambda *_: gone
    vm.clock.pass_by(lease.DURATION_S + 1)
    with pytest.raises(Unavailable):
        vm.heartbeat.reconcile()
    vm.cluster.refuse = lambda *_: None


def test_a_claim_is_three_requests() -> None:
    """Look, an extra beat with the address, look again; and no more afterwards."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    assert [verb for verb, _ in cluster.calls] == ["get", "create", "list", "replace", "list"]
    assert address(cluster, FIRST) == "10.0.0.1"
    assert state(vm) is State.OURS
    cluster.calls.clear()
    vm.clock.pass_by(3)
    vm.beat_once()
    assert cluster.calls == [("replace", FIRST)]
    assert address(cluster, FIRST) == "10.0.0.1"


def test_an_extra_beat_is_out_of_the_rhythm() -> None:
    """Machines that were started together claim together, and must not beat together for it."""
    vm = Vm(FakeCluster())
    first = vm.heartbeat.reconcile().again
    vm.clock.pass_by(0.5)
    vm.label.set("10.0.0.1")
    assert vm.heartbeat.reconcile().again == pytest.approx(first - 0.5)


def test_a_beat_after_a_shorter_interval_is_not_late() -> None:
    """The rhythm of a large fleet is no reason to let the lease of a small one lapse."""
    vm = Vm(FakeCluster())
    vm.pace.set(lease.Pace(30.0))
    vm.heartbeat.reconcile()
    vm.pace.set(lease.Pace(3.0))
    vm.label.set("10.0.0.1")
    assert vm.heartbeat.reconcile().again <= 3.3


def test_a_look_that_fails_delays_no_beat() -> None:
    """The heartbeat asks nothing: it beats while lists find nobody, and all else goes on."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    hangs: VmoorError = Unavailable("hangs")
    cluster.refuse = lambda verb, _: hangs if verb == "list" else None
    for _ in range(10):
        with pytest.raises(Unavailable):
            vm.beat_once()
        assert lease.may_write(vm.lock.get(), vm.beat.get(), vm.clock.now())
        vm.clock.pass_by(3)
    assert state(vm) is State.UNKNOWN


def test_a_living_vm_keeps_its_address() -> None:
    """The second holds its own name, registers nothing, says why and what to do."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.moor()
    second.beat_once()
    assert second.claim().words == "VM vm1 (m1/b1) may live at this address"
    assert state(second) is State.UNKNOWN
    clock.pass_by(3)
    first.beat_once()
    cluster.calls.clear()
    settled = second.claim()
    assert settled.wrong
    assert settled.words == "cannot register under 10.0.0.1: VM vm1 (m1/b1) lives at this address"
    assert "vm.address" in settled.remedy
    second.judge(web=True)
    assert second.register().waiting
    assert [verb for verb, _ in cluster.calls if verb in ("apply", "status")] == []
    assert second.lock.get().held
    assert address(cluster, SECOND) == ""


def test_it_is_taken_when_the_first_has_died() -> None:
    """Its Lease has stood for the whole of its duration."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.beat_once()
    second.beat_once()
    assert until_claimed(second, 20) >= lease.DURATION_S
    assert address(cluster, SECOND) == "10.0.0.1"


@pytest.mark.parametrize("end", ["leave", "release", "tombstone"])
def test_nobody_waits_for_who_is_gone(end: str) -> None:
    """After a leave, even when it could only empty the holder, and after the reaper's word."""
    cluster, clock = FakeCluster(), Clock()
    first = Vm(cluster, clock=clock)
    first.beat_once()
    if end == "leave":
        first.leaving.leave(10)
    elif end == "release":
        cluster.edit(Kind.LEASE, FIRST, lambda thing: thing["spec"].update(holderIdentity=""))
    else:
        notes = {TOMBSTONE: "{}"}
        cluster.edit(Kind.LEASE, FIRST, lambda thing: thing["metadata"].update(annotations=notes))
    second = other(cluster, clock)
    second.beat_once()
    assert state(second) is State.OURS


def test_a_restart_starts_as_it_was_and_asks_later() -> None:
    """Neither is a dead neighbour waited for again, nor is the label ever away."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    vm = other(cluster, clock)
    until_claimed(vm, 20)
    again = other(cluster, clock)
    again.draw = 1.0
    again.own_address.set("")  # it is not known yet
    cluster.calls.clear()
    again.beat_once()
    assert address(cluster, SECOND) == "10.0.0.1"
    again.own_address.set("10.0.0.1")
    again.beat_once()
    assert state(again) is State.OURS
    assert lists(cluster) == 0
    clock.pass_by(3)
    for _ in range(12):
        again.beat_once()
        assert state(again) is State.OURS
        assert address(cluster, SECOND) == "10.0.0.1"
        clock.pass_by(1)
    assert again.claim().again > 1e6


def test_a_restart_finds_who_came_meanwhile() -> None:
    """It may have been down for longer than its lease."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    second = other(cluster, clock)
    until_claimed(second, 20)
    again = Vm(cluster, clock=clock)
    again.beat_once()
    clock.pass_by(3)
    second.beat_once()
    again.beat_once()
    assert state(again) is State.TAKEN
    assert address(cluster, FIRST) == ""
    assert state(second) is State.OURS


def test_a_boot_asks_anew() -> None:
    """What an earlier boot claimed may be another's by now."""
    cluster, clock = FakeCluster(), Clock()
    vm = Vm(cluster, clock=clock)
    vm.beat_once()
    after = vm.boot("b2")
    after.beat_once()
    clock.pass_by(10)
    cluster.calls.clear()
    after.beat_once()
    assert lists(cluster) == 2
    assert state(after) is State.OURS


def test_both_at_once() -> None:
    """Who finds another claim right after its own takes it back, and tries again later."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.draw = 0.5
    first.heartbeat.reconcile()
    first.claiming.reconcile()
    second.beat_once()  # the first has looked, and not written yet
    first.claim()
    assert (state(first), address(cluster, FIRST)) == (State.UNKNOWN, "")
    assert 0 < first.claim().again < 1
    assert state(second) is State.OURS


def test_a_failed_second_look_proves_nothing() -> None:
    """Both claim at once, the look after the beat fails: only one has it in the end."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.heartbeat.reconcile()
    first.claiming.reconcile()
    second.beat_once()
    cut: VmoorError = Unavailable("cut")
    cluster.refuse = lambda verb, _: cut if verb == "list" else None
    with pytest.raises(Unavailable):
        first.claim()
    assert address(cluster, FIRST) == "10.0.0.1"
    assert state(first) is State.UNKNOWN
    cluster.refuse = lambda *_: None
    first.claim()
    assert (state(first), state(second)) == (State.UNKNOWN, State.OURS)
    assert address(cluster, FIRST) == ""


def test_a_lapse_drops_nothing_and_is_followed_by_a_look() -> None:
    """The label stays; who finds itself alone goes on, and not all look at once."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.draw = 0.5
    vm.beat_once()
    lapse(vm)
    cluster.calls.clear()
    vm.beat_once()
    assert {verb for verb, _ in cluster.calls} == {"get", "replace"}
    assert address(cluster, FIRST) == "10.0.0.1"
    assert state(vm) is State.UNKNOWN
    assert vm.claim().again == pytest.approx(1.5)
    vm.clock.pass_by(1.5)
    vm.claim()
    assert lists(cluster) == 1
    assert state(vm) is State.OURS


def test_each_lapse_spreads_the_looks_anew() -> None:
    """A connection that comes and goes is no reason to ask at once."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.draw = 0.5
    vm.beat_once()
    cluster.calls.clear()
    for _ in range(2):
        lapse(vm)
        vm.beat_once()
    assert lists(cluster) == 0
    assert vm.claim().again == pytest.approx(1.5)


def test_who_took_it_over_in_a_lapse_keeps_it() -> None:
    """The first finds the other alive, takes its label back and its entries out."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.moor()
    until_claimed(second, 20)
    lapse(first)
    second.beat_once()
    first.beat_once()
    first.judge(web=True)
    first.register()
    assert healthy(cluster, WEB)[0] == "True"
    clock.pass_by(3)
    second.beat_once()
    first.beat_once()
    assert (state(first), state(second)) == (State.TAKEN, State.OURS)
    assert address(cluster, FIRST) == ""
    first.register()
    assert healthy(cluster, WEB) == ("False", "AddressTaken")
    second.leaving.leave(10)
    clock.pass_by(5)
    first.beat_once()
    assert state(first) is State.OURS
    first.register()
    assert healthy(cluster, WEB)[0] == "True"


def test_what_was_proven_in_another_term_counts_no_more() -> None:
    """Whoever holds the lock anew knows nothing of the address until it is told."""
    vm = Vm(FakeCluster())
    vm.beat_once()
    lock = vm.lock.get()
    assert vm.claimed.get().under("10.0.0.1", lock) is State.OURS
    assert vm.claimed.get().under("10.0.0.1", replace(lock, since=1.0)) is State.UNKNOWN
    assert vm.claimed.get().under("10.0.0.2", lock) is State.UNKNOWN


def test_a_former_address_is_free_for_others() -> None:
    """Even while the new one is another VM's."""
    cluster, clock = FakeCluster(), Clock()
    vm, there = Vm(cluster, clock=clock), other(cluster, clock)
    there.own_address.set("10.0.0.2")
    there.beat_once()
    vm.beat_once()
    vm.own_address.set("10.0.0.2")
    vm.claim()
    assert address(cluster, FIRST) == ""


def test_the_machine_itself_is_no_other() -> None:
    """Under an earlier name, whose Lease still stands."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    renamed = other(cluster, clock, machine="m1")
    renamed.beat_once()
    assert state(renamed) is State.OURS


def test_one_address_in_two_networks_is_two() -> None:
    """Istio lets networks use the same addresses."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    second = other(cluster, clock)
    mesh = MeshSource(kv_mount="secret", kv_path="vmoor/mesh-a", network="north")
    second.settings.set(replace(settings(), mesh=mesh))
    second.moor()
    entry = cluster.there(Kind.ENTRY, "web.vm2")
    assert entry is not None
    assert entry["spec"]["network"] == "north"
    assert healthy(cluster, "web.vm2")[0] == "True"


def test_the_longest_label_is_short_enough() -> None:
    """63 characters, of which the last is a letter or a digit."""
    label = claim.form("1111:2222:3333:4444:5555:6666:255.255.255.255", "n" * 253)
    assert len(label) <= 63
    assert label[-1].isalnum()


def test_without_the_right_to_look_nobody_is_kept_out() -> None:
    """Manifests of an earlier version do not grant it: told with what to apply, seldom asked."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    denied: VmoorError = Forbidden("no right to list leases", remedy="vmoor admin manifests")
    cluster.refuse = lambda verb, name: denied if verb == "list" and ADDRESS in name else None
    vm.beat_once()
    vm.clock.pass_by(3)
    vm.beat_once()
    settled = vm.claim()
    assert state(vm) is State.OURS
    assert (settled.wrong, settled.remedy) == (True, "vmoor admin manifests")
    assert lists(cluster) == 1
    assert address(cluster, FIRST) == "10.0.0.1"
