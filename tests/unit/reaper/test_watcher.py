from __future__ import annotations

from typing import Optional

import pytest
from vmoor.errors import Unavailable, VmoorError
from vmoor.model import entry
from vmoor.ports import Kind
from vmoor.reaper.watcher import RECENT, Sight

from tests.fakes.cluster import FakeCluster
from tests.unit.reaper.world import Reaper, SimVm
from tests.unit.registration.world import Clock


def world(count: int = 2) -> tuple[FakeCluster, Clock, Reaper, list[SimVm]]:
    cluster, clock = FakeCluster(), Clock()
    vms = [SimVm(cluster, clock, f"vm{n}") for n in range(count)]
    for vm in vms:
        vm.beat()
        vm.serve("web")
    return cluster, clock, Reaper(cluster, clock), vms


def test_a_change_is_stamped_with_our_own_clock() -> None:
    """When the renewTime was seen to change; a mark on the Lease is no beat."""
    cluster, clock, reaper, vms = world()
    reaper.look()
    first = clock.now()
    clock.pass_by(3)
    vms[0].beat()
    cluster.edit(Kind.LEASE, "vmoor-vm1", lambda t: t["metadata"].update(annotations={"x": "y"}))
    reaper.look()
    things = reaper.leases.get().things
    assert things["shop", "vmoor-vm0"].changed == clock.now()
    assert things["shop", "vmoor-vm1"].changed == first


def test_an_end_of_the_watch_is_no_gap() -> None:
    """The server ends each after some minutes; the next goes on from there, nothing is listed."""
    cluster, clock, reaper, _ = world()
    reaper.look()
    t0 = reaper.leases.get().t0
    cluster.calls.clear()
    clock.pass_by(1)
    reaper.look()
    assert {verb for verb, _ in cluster.calls} == {"watch"}
    assert reaper.leases.get().t0 == t0


def test_a_forgotten_version_is_listed_anew() -> None:
    """410: what happened meanwhile is in the list, what stands there as before keeps its time."""
    cluster, clock, reaper, vms = world(3)
    reaper.look()
    first = clock.now()
    clock.pass_by(2)
    cluster.remove(Kind.LEASE, "vmoor-vm2")
    vms[0].beat()
    cluster.forget_history()
    reaper.look()
    assert not reaper.leases.get().live
    reaper.look()
    things = reaper.leases.get().things
    assert sorted(pulse.vm.name for pulse in things.values()) == ["vm0", "vm1"]
    assert things["shop", "vmoor-vm1"].changed == first
    assert things["shop", "vmoor-vm0"].changed == clock.now()


def test_a_failure_is_not_live_until_it_has_listed() -> None:
    """And a gap, when it took longer than the renewals of the leader's Lease."""
    cluster, clock, reaper, _ = world()
    reaper.look()
    away: Optional[VmoorError] = Unavailable("away")
    cluster.refuse = lambda *_: away
    with pytest.raises(Unavailable):
        reaper.look()
    assert reaper.leases.get().silent(clock.now())
    cluster.refuse = lambda *_: None
    clock.pass_by(6)
    reaper.look()
    assert not reaper.leases.get().silent(clock.now())
    assert reaper.leases.get().t0 == clock.now()


def test_what_loses_its_mark_is_seen_no_more() -> None:
    """Whatever label it was."""
    cluster, _, reaper, _ = world()
    reaper.look()
    cluster.edit(Kind.LEASE, "vmoor-vm0", lambda t: t["metadata"]["labels"].pop(entry.VM))
    cluster.edit(Kind.ENTRY, "web.vm1", lambda t: t["metadata"]["labels"].pop(entry.MANAGED_BY))
    reaper.look()
    assert list(reaper.leases.get().things) == [("shop", "vmoor-vm1")]
    assert list(reaper.entries.get().things) == [("shop", "web.vm0")]


def test_changes_add_up() -> None:
    """However many: what is there, what is gone, and what came back."""
    sight: Sight[int] = Sight(base={("ns", "a"): 1, ("ns", "b"): 2})
    for n in range(3 * RECENT):
        sight = sight.changed(("ns", f"x{n}"), n)
    sight = sight.changed(("ns", "a"), None).changed(("ns", "x7"), None).changed(("ns", "b"), 3)
    assert sight.find(("ns", "a")) is None
    assert sight.find(("ns", "b")) == sight.things["ns", "b"] == 3
    assert len(sight.things) == 3 * RECENT
