from __future__ import annotations

from vmoor.errors import Conflict, Unavailable
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.fakes.envoy import FakeEnvoy
from tests.unit.registration.world import Clock, Vm, service

LEASE = "vmoor-vm1"


def moored(envoy: FakeEnvoy) -> tuple[FakeCluster, Vm]:
    cluster = FakeCluster()
    vm = Vm(cluster, envoy=envoy)
    vm.serve(service("api", 9090), service("web"))
    vm.moor(api=True, web=True)
    cluster.calls.clear()
    return cluster, vm


def test_it_leaves_nothing() -> None:
    """Entries and Lease are gone."""
    cluster, vm = moored(FakeEnvoy())
    assert vm.leaving.leave(10) == ()
    assert cluster.names(Kind.ENTRY) == set()
    assert cluster.names(Kind.LEASE) == set()


def test_out_then_seen_then_deleted() -> None:
    """No entry is deleted before all are out and our own Envoy has forgotten us."""
    cluster, vm = moored(FakeEnvoy(looks=3))
    start = vm.clock.now()
    vm.leaving.leave(10)
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
    assert 0 < vm.clock.now() - start < 0.2


def test_an_envoy_that_never_forgets_costs_half_a_second() -> None:
    """The wait is bounded."""
    _, vm = moored(FakeEnvoy(looks=10_000))
    start = vm.clock.now()
    vm.leaving.leave(10)
    assert 0.5 <= vm.clock.now() - start < 0.6


def test_an_envoy_that_is_dead_costs_nothing() -> None:
    """It cannot be asked, so there is nothing to wait for."""
    _, vm = moored(FakeEnvoy(looks=None))
    start = vm.clock.now()
    assert vm.leaving.leave(10) == ()
    assert vm.clock.now() == start


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
