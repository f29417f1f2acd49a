from __future__ import annotations

from dataclasses import replace

import pytest
from vmoor.config.settings import Leave
from vmoor.controllers.leaving import MARK, unfinished
from vmoor.errors import Conflict, Unavailable
from vmoor.model import entry
from vmoor.model.sight import Sight
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.fakes.envoy import FakeEnvoy
from tests.unit.registration.world import Clock, Vm, service, settings

LEASE = "vmoor-vm1"


def moored(envoy: FakeEnvoy) -> tuple[FakeCluster, Vm]:
    cluster = FakeCluster()
    vm = Vm(cluster, envoy=envoy)
    vm.serve(service("api", 9090), service("web"))
    vm.moor(api=True, web=True)
    vm.sights.set({name: Sight(listed=True) for name in ("api", "web")})
    vm.heartbeat.last_beat(2.0)
    cluster.calls.clear()
    return cluster, vm


def test_it_leaves_nothing() -> None:
    """Entries and Lease are gone."""
    cluster, vm = moored(FakeEnvoy())
    assert vm.leaving.leave(10) == ()
    assert cluster.names(Kind.ENTRY) == set()
    assert cluster.names(Kind.LEASE) == set()


def test_out_then_seen_then_drained_then_deleted() -> None:
    """No entry is deleted before all are out, our own Envoy has forgotten us and is drained."""
    cluster, vm = moored(FakeEnvoy(looks=3, open=[2, 1, 0]))
    start = vm.clock.now()
    vm.leaving.leave(40)
    assert [verb for verb, _ in cluster.calls] == [
        "list",
        "status",
        "status",
        "delete",
        "delete",
        "get",
        "delete",
    ]
    assert set(vm.envoy.asked) == {"10.0.0.1:9090", "10.0.0.1:8080"}
    assert vm.envoy.drained
    assert vm.told == [
        "Leaving the mesh",
        "Leaving: 2 requests to end",
        "Leaving: 1 request to end",
    ]
    assert 0.3 <= vm.clock.now() - start < 0.4


def test_what_our_own_envoy_never_listed_is_waited_for_blindly() -> None:
    """Its silence proves nothing then: as long as istiod gathers changes, and a push."""
    _, vm = moored(FakeEnvoy())
    vm.sights.set({})
    start = vm.clock.now()
    vm.leaving.leave(40)
    assert 0.5 <= vm.clock.now() - start < 0.6
    assert vm.envoy.asked == []


def test_istiod_gets_its_time_also_when_envoy_forgot_at_once() -> None:
    """What it says right after the write may be what it said before: never below 0.1 s."""
    _, vm = moored(FakeEnvoy())
    start = vm.clock.now()
    vm.leaving.leave(40)
    assert 0.1 <= vm.clock.now() - start < 0.2


def test_an_envoy_that_never_forgets_is_waited_for_as_long_as_istiod_may_gather() -> None:
    """Ten seconds; the proxy serves on meanwhile."""
    _, vm = moored(FakeEnvoy(looks=10_000))
    start = vm.clock.now()
    vm.leaving.leave(40)
    assert 10.0 <= vm.clock.now() - start < 10.2


def test_an_envoy_that_is_dead_costs_half_a_second() -> None:
    """Nothing is to be drained, but others are to hear of it."""
    _, vm = moored(FakeEnvoy(looks=None))
    start = vm.clock.now()
    assert vm.leaving.leave(40) == ()
    assert 0.5 <= vm.clock.now() - start < 0.6


def test_a_vm_that_is_out_already_waits_for_nothing() -> None:
    """Drained before, or sick: the mesh has known it for long."""
    _, vm = moored(FakeEnvoy())
    vm.judge(api=False, web=False)
    vm.register()
    start = vm.clock.now()
    assert vm.leaving.leave(40) == ()
    assert vm.clock.now() == start


@pytest.mark.parametrize(("timeout", "given", "drained"), [(30.0, 40.0, 30.0), (30.0, 20.0, 15.9)])
def test_a_connection_that_does_not_end_is_waited_for_up_to_the_limit(
    timeout: float, given: float, drained: float
) -> None:
    """drain.timeout, but the entries and the Lease always get their time."""
    cluster, vm = moored(FakeEnvoy(open=[1]))
    vm.settings.set(replace(settings(), drain_timeout=timeout))
    start = vm.clock.now()
    assert vm.leaving.leave(given) == ()
    assert vm.clock.now() - start == pytest.approx(0.1 + drained, abs=0.05)
    assert cluster.names(Kind.ENTRY) == set()


def test_kept_entries_are_out_and_their_lease_is_nobodys() -> None:
    """leave.keep_entries: the next start takes them over at once."""
    cluster, vm = moored(FakeEnvoy())
    vm.settings.set(replace(settings(), leave=Leave(keep_entries=True)))
    assert vm.leaving.leave(40) == ()
    assert cluster.names(Kind.ENTRY) == {"api.vm1", "web.vm1"}
    for name in ("api.vm1", "web.vm1"):
        there = cluster.there(Kind.ENTRY, name)
        assert there is not None
        assert (entry.health(there) or {})["reason"] == "Leaving"
    lease = cluster.there(Kind.LEASE, LEASE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


class Killed(BaseException):
    """kill -9: nothing is caught or cleaned up."""


@pytest.mark.parametrize("call", range(7))
def test_a_leave_that_is_killed_anywhere_is_finished_by_the_next_start(call: int) -> None:
    """Before or after any of its calls: the next life moors; its own stop leaves nothing."""
    cluster, vm = moored(FakeEnvoy())
    calls = iter(range(7))

    def kill(_verb: str, _name: str) -> None:
        if next(calls) == call:
            raise Killed

    cluster.before = kill
    with pytest.raises(Killed):
        vm.leaving.leave(40)
    cluster.before = lambda *_: None
    drained = MARK in vm.disk.files
    assert drained is vm.envoy.drained is unfinished(vm.disk)
    after = vm.boot("b1")
    after.serve(service("api", 9090), service("web"))
    after.moor(api=True, web=True)
    for name in ("api.vm1", "web.vm1"):
        there = cluster.there(Kind.ENTRY, name)
        assert there is not None
        assert entry.health_status(there) == "True"
    assert after.leaving.leave(40) == ()
    assert (cluster.names(Kind.ENTRY), cluster.names(Kind.LEASE)) == (set(), set())


def test_without_an_api_server_it_ends_in_time_and_says_what_is_left() -> None:
    """Every call may take its whole deadline; the sum stays within the bound."""
    cluster, vm = moored(FakeEnvoy())
    cluster.spend, cluster.latency = vm.clock.pass_by, 1000.0
    start = vm.clock.now()
    (left,) = vm.leaving.leave(5)
    assert vm.clock.now() - start <= 5
    assert left.startswith("all entries are left")


def test_a_slow_api_server_does_not_break_the_bound() -> None:
    """What does not fit is told, one by one, and the Lease stays for what stays."""
    cluster, vm = moored(FakeEnvoy())
    cluster.spend, cluster.latency = vm.clock.pass_by, 1.5
    start = vm.clock.now()
    left = vm.leaving.leave(5)
    assert vm.clock.now() - start <= 5
    assert any("entry api.vm1 is left" in words for words in left)
    assert cluster.names(Kind.LEASE) == {LEASE}


def test_a_server_that_is_gone_for_a_moment_is_asked_again() -> None:
    """A restart of the API server is no reason to leave entries behind."""
    cluster, vm = moored(FakeEnvoy())
    failures = [Unavailable("away"), Unavailable("away")]
    cluster.refuse = lambda *_: failures.pop() if failures else None
    assert vm.leaving.leave(10) == ()
    assert cluster.names(Kind.ENTRY) == set()


def test_somebody_elses_edit_in_between_is_read_again() -> None:
    """409 on the way out: once more against the newest version."""
    cluster, vm = moored(FakeEnvoy())

    def edit(verb: str, name: str) -> None:
        if verb == "status" and name == "web.vm1":
            cluster.before = lambda *_: None
            cluster.edit(Kind.ENTRY, name, lambda t: t["spec"].update(weight=2))

    cluster.before = edit
    assert vm.leaving.leave(10) == ()
    assert cluster.names(Kind.ENTRY) == set()


def test_a_lease_that_cannot_be_deleted_is_released() -> None:
    """Nobody holds it: the next of this name need not wait."""
    cluster, vm = moored(FakeEnvoy())
    no = Unavailable("no")
    cluster.refuse = lambda verb, name: no if (verb, name) == ("delete", LEASE) else None
    assert vm.leaving.leave(10) == ()
    lease = cluster.there(Kind.LEASE, LEASE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


def test_an_entry_that_stays_keeps_the_lease() -> None:
    """Its end is what takes the entry out later."""
    cluster, vm = moored(FakeEnvoy())
    no = Conflict("no")
    cluster.refuse = lambda verb, name: no if (verb, name) == ("delete", "web.vm1") else None
    assert any("web.vm1" in words for words in vm.leaving.leave(10))
    assert cluster.names(Kind.LEASE) == {LEASE}
    assert cluster.names(Kind.ENTRY) == {"web.vm1"}


def test_without_the_lock_nothing_is_touched() -> None:
    """The entries under this name are another machine's."""
    cluster, clock = FakeCluster(), Clock()
    Vm(cluster, clock=clock).moor()
    second = Vm(cluster, machine="m2", boot="b9", clock=clock)
    second.beat_once()
    cluster.calls.clear()
    (left,) = second.leaving.leave(10)
    assert "m1/b1" in left
    assert cluster.calls == []


def test_foreign_entries_stay() -> None:
    """Only what carries our whole mark is deleted."""
    cluster, vm = moored(FakeEnvoy())
    other = Vm(cluster, name="vm2", machine="m2", clock=vm.clock, address="10.0.0.2")
    other.moor()
    vm.leaving.leave(10)
    assert cluster.names(Kind.ENTRY) == {"web.vm2"}


def test_what_became_somebody_elses_meanwhile_stays() -> None:
    """Deleted and made anew by another between our read and our write: the 409 shows whose."""
    cluster, vm = moored(FakeEnvoy())
    theirs = {"metadata": {"name": "web.vm1", "labels": {}}, "spec": {"address": "10.9.9.9"}}

    def swap(verb: str, name: str) -> None:
        if (verb, name) == ("status", "web.vm1"):
            cluster.before = lambda *_: None
            cluster.remove(Kind.ENTRY, name)
            cluster.put(Kind.ENTRY, theirs)

    cluster.before = swap
    assert vm.leaving.leave(10) == ()
    there = cluster.there(Kind.ENTRY, "web.vm1")
    assert there is not None
    assert there["spec"] == {"address": "10.9.9.9"}
