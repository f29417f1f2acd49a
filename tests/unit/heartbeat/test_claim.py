"""Two VMs of one address: the second waits until the first is really gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from vmoor.errors import Forbidden, Rejected, Unavailable, VmoorError
from vmoor.model import lease
from vmoor.model.claim import ADDRESS
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Clock, Vm

FIRST, SECOND = "vmoor-vm1", "vmoor-vm2"


def other(cluster: FakeCluster, clock: Clock, name: str = "vm2", machine: str = "m2") -> Vm:
    return Vm(cluster, name=name, machine=machine, boot="b9", clock=clock)


def address(cluster: FakeCluster, name: str) -> str:
    found = cluster.there(Kind.LEASE, name)
    assert found is not None
    return str(found["metadata"]["labels"].get(ADDRESS, ""))


def entries(cluster: FakeCluster) -> Sequence[str]:
    return [name for verb, name in cluster.calls if verb in ("apply", "status")]


def until_claimed(vm: Vm, limit: float) -> float:
    waited = 0.0
    while not vm.lock.get().address:
        again = vm.beat_once().again
        vm.clock.pass_by(again)
        waited += again
        assert waited < limit
    return waited


def test_the_lease_carries_the_address() -> None:
    """From the first pass on, and no more questions are asked afterwards."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.beat_once()
    assert address(cluster, FIRST) == vm.lock.get().address == "10.0.0.1"
    cluster.calls.clear()
    vm.clock.pass_by(3)
    vm.beat_once()
    assert cluster.calls == [("replace", FIRST)]
    assert address(cluster, FIRST) == "10.0.0.1"


def test_a_living_vm_keeps_its_address() -> None:
    """The second holds its own name, registers nothing, says why and what to do."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.moor()
    assert second.beat_once().words == "VM vm1 (m1/b1) may live at this address"
    clock.pass_by(3)
    first.beat_once()
    cluster.calls.clear()
    with pytest.raises(Rejected, match=r"under 10.0.0.1: VM vm1 \(m1/b1\) lives") as caught:
        second.beat_once()
    assert "vm.address" in caught.value.remedy
    second.judge(web=True)
    assert second.register().waiting
    assert entries(cluster) == []
    assert second.lock.get().held
    assert address(cluster, SECOND) == ""


@pytest.mark.parametrize("leaves", [False, True])
def test_it_is_taken_when_the_first_is_gone(leaves: bool) -> None:
    """At once after a leave, else when its Lease has stood for the whole of its duration."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.beat_once()
    second.beat_once()
    if leaves:
        first.leaving.leave(10)
    waited = until_claimed(second, 20)
    assert waited < 5 if leaves else waited >= lease.DURATION_S
    assert address(cluster, SECOND) == "10.0.0.1"


def test_a_restart_asks_nobody() -> None:
    """Neither is a dead neighbour waited for again, nor is the label ever away."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    vm = other(cluster, clock)
    until_claimed(vm, 20)
    again = other(cluster, clock)
    again.own_address.set("")  # it is not known yet
    cluster.calls.clear()
    again.beat_once()
    assert address(cluster, SECOND) == "10.0.0.1"
    again.own_address.set("10.0.0.1")
    again.beat_once()
    assert again.lock.get().address == "10.0.0.1"
    assert "list" not in [verb for verb, _ in cluster.calls]


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
    assert "list" in [verb for verb, _ in cluster.calls]
    assert after.lock.get().address == "10.0.0.1"


def test_both_at_once() -> None:
    """Who finds another claim right after its own takes it back, and tries again later."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    second.own_address.set("")
    second.beat_once()

    def claims(verb: str, name: str) -> None:
        if (verb, name) == ("replace", FIRST):
            cluster.before = lambda _verb, _name: None
            second.own_address.set("10.0.0.1")
            second.beat_once()

    cluster.before = claims
    settled = first.beat_once()
    assert settled.waiting
    assert settled.again < 1
    assert (first.lock.get().address, address(cluster, FIRST)) == ("", "")
    assert second.lock.get().address == "10.0.0.1"


def test_after_a_lapse_it_asks_again() -> None:
    """Meanwhile somebody else may have found it dead and taken over."""
    cluster, clock = FakeCluster(), Clock()
    first, second = Vm(cluster, clock=clock), other(cluster, clock)
    first.beat_once()
    failed: VmoorError = Unavailable("away")
    until_claimed(second, 20)
    cluster.refuse = lambda *_: failed
    with pytest.raises(Unavailable):
        first.beat_once()
    cluster.refuse = lambda *_: None
    first.beat_once()
    assert first.lock.get().held
    assert first.lock.get().address == ""
    assert address(cluster, FIRST) == ""


def test_the_machine_itself_is_no_other() -> None:
    """Under an earlier name, whose Lease still stands."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).beat_once()
    renamed = other(cluster, clock, machine="m1")
    renamed.beat_once()
    assert renamed.lock.get().address == "10.0.0.1"


def test_without_the_right_to_look_nobody_is_kept_out(caplog: pytest.LogCaptureFixture) -> None:
    """Manifests of an earlier version do not grant it: told once, with what to apply."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    denied: VmoorError = Forbidden("no right to list leases", remedy="vmoor admin manifests")
    cluster.refuse = lambda verb, _name: denied if verb == "list" else None
    with caplog.at_level(logging.WARNING):
        vm.beat_once()
        vm.clock.pass_by(3)
        vm.beat_once()
    assert vm.lock.get().address == "10.0.0.1"
    assert len(caplog.records) == 1
    assert "vmoor admin manifests" in caplog.text
