"""What is written of our entries while the address is not known to be ours."""

from __future__ import annotations

import pytest
from vmoor.errors import Unavailable, VmoorError
from vmoor.model.claim import State
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Vm, service

WEB = "web.vm1"


def moored(**healthy: bool) -> tuple[FakeCluster, Vm]:
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.serve(*map(service, sorted(healthy)))
    vm.moor(**healthy)
    return cluster, vm


def claimed(vm: Vm, state: State) -> None:
    vm.claimed.set(type(vm.claimed.get())(vm.lock.get().label, vm.lock.get().since, state))


def health(cluster: FakeCluster, name: str = WEB) -> tuple[str, str]:
    thing = cluster.there(Kind.ENTRY, name)
    assert thing is not None
    (found,) = thing["status"]["conditions"]
    return found["status"], found["reason"]


def test_unknown_keeps_what_is_in_and_creates_nothing() -> None:
    """A healthy entry stays as it is, a new service waits."""
    cluster, vm = moored(web=True)
    claimed(vm, State.UNKNOWN)
    vm.serve(service("api", 9090), service("web", 8081))
    vm.judge(api=True, web=True)
    cluster.calls.clear()
    assert vm.register().waiting
    assert {verb for verb, _ in cluster.calls} <= {"get"}
    assert [(e.name, e.state) for e in vm.registered.get()] == [
        ("api.vm1", "pending"), (WEB, "registered"),
    ]  # fmt: skip


def test_unknown_lets_the_unhealthy_out_and_not_in_again() -> None:
    """A dead service leaves the mesh whatever is known of the address."""
    cluster, vm = moored(web=True)
    claimed(vm, State.UNKNOWN)
    vm.judge(web=False)
    vm.register()
    assert health(cluster)[0] == "False"
    vm.judge(web=True)
    vm.register()
    assert health(cluster)[0] == "False"
    claimed(vm, State.OURS)
    vm.register()
    assert health(cluster)[0] == "True"


def test_unknown_lets_go_what_is_no_longer_served() -> None:
    """Out, then deleted."""
    cluster, vm = moored(api=True, web=True)
    claimed(vm, State.UNKNOWN)
    vm.serve(service("web"))
    vm.register()
    vm.clock.pass_by(0.5)
    vm.register()
    assert cluster.there(Kind.ENTRY, "api.vm1") is None


def test_an_entry_of_a_former_address_goes_out_at_once() -> None:
    """Nobody answers there any more, or somebody else does."""
    cluster, vm = moored(web=True)
    vm.address = "10.0.0.7"
    vm.serve(service("web"))
    vm.register()
    assert health(cluster) == ("False", "AddressChanged")
    thing = cluster.there(Kind.ENTRY, WEB)
    assert thing is not None
    assert thing["spec"]["address"] == "10.0.0.1"
    vm.claim()
    vm.register()
    assert health(cluster)[0] == "True"
    assert cluster.there(Kind.ENTRY, WEB)["spec"]["address"] == "10.0.0.7"  # type: ignore[index]


def test_taken_takes_all_out_and_deletes_nothing() -> None:
    """Also what is no longer served; told once."""
    cluster, vm = moored(api=True, web=False)
    claimed(vm, State.TAKEN)
    vm.serve(service("web"))
    assert vm.register().waiting
    assert health(cluster, "api.vm1") == health(cluster) == ("False", "AddressTaken")
    vm.clock.pass_by(1)
    cluster.calls.clear()
    vm.register()
    assert cluster.calls == []


def test_an_api_server_that_lists_nothing_keeps_no_verdict_waiting() -> None:
    """The claim cannot be asked for: out works, by the heartbeat's lock alone."""
    cluster, vm = moored(web=True)
    hangs: VmoorError = Unavailable("hangs")
    after = vm.boot("b1", address="10.0.0.7")
    cluster.refuse = lambda verb, _: hangs if verb == "list" else None
    with pytest.raises(Unavailable):
        after.beat_once()
    after.judge(web=False)
    after.register()
    assert health(cluster)[0] == "False"
