from __future__ import annotations

import pytest
from vmoor import errors
from vmoor.model import entry
from vmoor.model.proxy import ProxyState
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Clock, Vm, service

WEB = "web.vm1"


def health(cluster: FakeCluster, name: str = WEB) -> str:
    thing = cluster.there(Kind.ENTRY, name)
    return entry.health_status(thing) if thing else "no entry"


def reason(cluster: FakeCluster, name: str = WEB) -> str:
    thing = cluster.there(Kind.ENTRY, name)
    assert thing is not None
    return str((entry.health(thing) or {}).get("reason"))


def moored(**healthy: bool) -> tuple[FakeCluster, Vm]:
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.serve(*(service(name) for name in healthy or {"web": True}))
    vm.moor(**healthy)
    cluster.calls.clear()
    return cluster, vm


def test_a_healthy_service_is_registered() -> None:
    """Entry, then Healthy=True."""
    cluster, vm = moored()
    assert health(cluster) == "True"
    assert [(s.name, s.state, s.health) for s in vm.registered.get()] == [
        (WEB, "registered", "True")
    ]


def test_a_settled_world_is_left_alone() -> None:
    """No request at all in a steady state, however often it is looked at."""
    cluster, vm = moored(web=True, api=False)
    vm.register()
    vm.clock.pass_by(3)
    vm.beat_once()
    cluster.calls.clear()
    settled = vm.register()
    assert cluster.calls == []
    assert settled.again > 60


def test_a_sick_service_goes_out_by_one_request() -> None:
    """One PATCH, nothing before it."""
    cluster, vm = moored(web=True, api=True)
    vm.judge(web=False, api=True)
    vm.register()
    assert cluster.calls == [("status", WEB)]
    assert health(cluster) == "False"
    assert reason(cluster) == "CheckFailed"


def test_out_comes_before_in() -> None:
    """When two change at once, the sick one is written first."""
    cluster, vm = moored(web=False, zoo=True)
    vm.judge(web=True, zoo=False)
    vm.register()
    assert cluster.calls == [("status", "zoo.vm1"), ("status", WEB)]


def test_nothing_is_written_without_the_lease() -> None:
    """It waits for the lock, and tells so."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.judge(web=True)
    assert vm.register().waiting
    assert cluster.names(Kind.ENTRY) == set()


def test_nothing_is_written_past_the_lease() -> None:
    """Ten seconds without a confirmed beat: the name may be another's."""
    cluster, vm = moored()
    vm.clock.pass_by(10)
    vm.judge(web=False)
    settled = vm.register()
    assert settled.waiting
    assert settled.again <= 3
    assert cluster.calls == []


def test_a_lease_that_lapses_during_a_pass_ends_its_writes() -> None:
    """A pass over a slow API server outlives the lease: the rest is not written."""
    cluster, vm = moored(api=True, web=True)
    cluster.before = lambda *_: vm.clock.pass_by(10)
    vm.judge(api=False, web=False)
    with pytest.raises(errors.Unavailable):
        vm.register()
    assert [verb for verb, _ in cluster.calls] == ["status"]


def test_a_deleted_entry_comes_back() -> None:
    """Seen by the watch, made anew."""
    cluster, vm = moored()
    cluster.remove(Kind.ENTRY, WEB)
    vm.watch()
    vm.register()
    assert health(cluster) == "True"


def test_an_edited_entry_is_mended() -> None:
    """Seen by the watch, put right without a read."""
    cluster, vm = moored()
    cluster.edit(Kind.ENTRY, WEB, lambda t: t["spec"].update(address="10.9.9.9"))
    vm.watch()
    cluster.calls.clear()
    vm.register()
    assert cluster.calls == [("apply", WEB)]
    thing = cluster.there(Kind.ENTRY, WEB)
    assert thing is not None
    assert thing["spec"]["address"] == "10.0.0.1"


def test_a_write_against_an_old_version_is_judged_anew() -> None:
    """409: read, judge, write, all in the same pass."""
    cluster, vm = moored()
    cluster.edit(Kind.ENTRY, WEB, lambda t: t["spec"].update(weight=9))
    vm.judge(web=False)
    vm.register()
    assert cluster.calls == [("status", WEB), ("get", WEB), ("status", WEB)]
    assert health(cluster) == "False"


def test_without_a_watch_everything_is_read_now_and_then() -> None:
    """Slower, but it still converges."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.judge(web=True)
    vm.beat_once()
    assert vm.register().again <= 30
    cluster.remove(Kind.ENTRY, WEB)
    vm.clock.pass_by(31)
    vm.beat_once()
    vm.register()
    assert health(cluster) == "True"


def test_a_late_watch_undoes_nothing() -> None:
    """The watch tells our own older write after the newer: no read, no write."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.judge(web=True)
    vm.beat_once()
    vm.observer.reconcile()  # the LIST, before there is an entry
    vm.register()
    first = cluster.there(Kind.ENTRY, WEB)
    vm.observer.reconcile()  # the watch: creation and health
    vm.judge(web=False)
    vm.register()
    assert first is not None
    cluster.calls.clear()
    vm.register()
    assert cluster.calls == []
    assert health(cluster) == "False"


def test_a_foreign_entry_of_our_name_is_refused_and_the_others_go_on() -> None:
    """It is not touched, a person is told whose it is, and the next service is registered."""
    cluster = FakeCluster()
    theirs = {"metadata": {"name": "api.vm1"}, "spec": {"address": "10.9.9.9"}}
    cluster.put(Kind.ENTRY, theirs)
    before = cluster.there(Kind.ENTRY, "api.vm1")
    vm = Vm(cluster)
    vm.serve(service("api", 9090), service("web"))
    with pytest.raises(errors.Rejected, match="cannot register api") as caught:
        vm.moor(api=True, web=True)
    assert "kubectl -n shop delete workloadentry api.vm1" in caught.value.remedy
    assert cluster.there(Kind.ENTRY, "api.vm1") == before
    assert health(cluster) == "True"
    states = {s.service: s.state for s in vm.registered.get()}
    assert states == {"api": "refused", "web": "registered"}
    cluster.remove(Kind.ENTRY, "api.vm1")
    vm.register()
    assert health(cluster, "api.vm1") == "True"


def test_a_foreign_creation_in_between_is_not_taken() -> None:
    """Between our 404 and our apply somebody made one of that name."""
    cluster = FakeCluster()
    theirs = {"metadata": {"name": WEB}, "spec": {"address": "10.9.9.9"}}

    def intrude(verb: str, name: str) -> None:
        if verb == "apply":
            cluster.before = lambda *_: None
            cluster.put(Kind.ENTRY, theirs)

    cluster.before = intrude
    vm = Vm(cluster)
    with pytest.raises(errors.Rejected):
        vm.moor()
    thing = cluster.there(Kind.ENTRY, WEB)
    assert thing is not None
    assert thing["spec"] == {"address": "10.9.9.9"}


def test_one_bad_entry_does_not_block_the_others() -> None:
    """The failure is told at the end, when all the others are written."""
    cluster = FakeCluster()
    bad = errors.Rejected("cannot patch api.vm1: no")
    cluster.refuse = lambda verb, name: bad if (verb, name) == ("apply", "api.vm1") else None
    vm = Vm(cluster)
    vm.serve(service("api", 9090), service("web"))
    with pytest.raises(errors.Rejected, match="api.vm1: no"):
        vm.moor(api=True, web=True)
    assert health(cluster) == "True"
    words = {s.service: s.words for s in vm.registered.get()}
    assert "no" in words["api"]


def test_the_most_severe_failure_is_told() -> None:
    """Away before refused: what decides about the next try."""
    cluster = FakeCluster()
    failures = {"api.vm1": errors.Rejected("r"), WEB: errors.Unavailable("u")}
    cluster.refuse = lambda verb, name: failures.get(name) if verb == "apply" else None
    vm = Vm(cluster)
    vm.serve(service("api", 9090), service("web"))
    with pytest.raises(errors.Unavailable):
        vm.moor(api=True, web=True)


def test_a_refused_token_ends_the_pass() -> None:
    """No second request with a token that was refused."""
    cluster, vm = moored(api=True, web=True)
    cluster.refuse = lambda *_: errors.Unauthenticated("no", generation=7)
    vm.judge(api=False, web=False)
    with pytest.raises(errors.Unauthenticated):
        vm.register()
    assert len(cluster.calls) == 1


def test_a_service_no_longer_wanted_goes_out_and_then_away() -> None:
    """Healthy=False first, the delete half a second later."""
    cluster, vm = moored(api=True, web=True)
    vm.serve(service("web"))
    settled = vm.register()
    assert health(cluster, "api.vm1") == "False"
    assert settled.again == pytest.approx(0.5)
    vm.clock.pass_by(settled.again)
    vm.register()
    assert cluster.names(Kind.ENTRY) == {WEB}
    assert [s.service for s in vm.registered.get()] == ["web"]


def test_entries_of_an_earlier_configuration_are_found() -> None:
    """A restart with one service less: the LIST shows the entry that nobody wants."""
    cluster, vm = moored(api=True, web=True)
    after = vm.boot("b1")
    after.moor()
    vm.clock.pass_by(0.5)
    after.register()
    assert cluster.names(Kind.ENTRY) == {WEB}


def test_the_neighbours_entries_are_never_seen() -> None:
    """Another VM's entries are in the same namespace and stay as they are."""
    cluster, clock = FakeCluster(), Clock()
    neighbour = Vm(cluster, name="vm2", machine="m2", clock=clock, address="10.0.0.2")
    neighbour.moor()
    before = cluster.there(Kind.ENTRY, "web.vm2")
    vm = Vm(cluster, clock=clock)
    vm.moor()
    vm.serve()
    vm.register()
    clock.pass_by(1)
    vm.register()
    assert cluster.there(Kind.ENTRY, "web.vm2") == before
    assert cluster.names(Kind.ENTRY) == {"web.vm2"}


def test_an_agent_restart_keeps_the_last_word() -> None:
    """No verdict yet, same boot, same proxy: nothing is written."""
    cluster, vm = moored()
    after = vm.boot("b1")
    after.moor(web=None)
    assert health(cluster) == "True"
    assert {verb for verb, _ in cluster.calls} <= {"get", "list", "watch", "replace", "create"}


def test_a_boot_takes_everything_out_first() -> None:
    """The last word is from before the boot."""
    cluster, vm = moored()
    after = vm.boot("b2")
    after.judge(web=None)
    after.beat_once()
    vm.clock.pass_by(10)
    after.beat_once()
    after.register()
    assert health(cluster) == "False"


def test_a_boot_inside_the_lease_takes_out_before_it_holds_the_lock() -> None:
    """Power cut and boot within seconds: the old True does not survive into the new boot."""
    cluster, vm = moored()
    after = vm.boot("b2")
    after.beat_once()
    assert after.register().waiting
    assert reason(cluster) == "Rebooted"
    assert not after.lock.get().held


def test_a_boot_with_another_address_leaves_the_old_entry_to_the_lock() -> None:
    """A clone that lives may be there: before the lock only our present address counts."""
    cluster, vm = moored()
    after = vm.boot("b2", address="10.0.0.9")
    after.beat_once()
    after.register()
    assert health(cluster) == "True"


def test_a_proxy_restart_that_nobody_saw_takes_out_first() -> None:
    """Another InvocationID than the one the last word was written for."""
    cluster, vm = moored()
    after = vm.boot("b1")
    after.proxy_state.set(ProxyState(live=True, invocation_id="i2"))
    after.moor(web=None)
    assert health(cluster) == "False"
    after.judge(web=True)
    after.register()
    assert health(cluster) == "True"
    again = vm.boot("b1")
    again.proxy_state.set(ProxyState(live=True, invocation_id="i2"))
    again.moor(web=None)
    assert health(cluster) == "True"


def test_a_proxy_that_was_not_looked_at_yet_is_no_other_proxy() -> None:
    """At the start of the agent the InvocationID is not known for a moment."""
    cluster, vm = moored()
    after = vm.boot("b1")
    after.proxy_state.set(ProxyState())
    after.moor(web=None)
    assert health(cluster) == "True"


def test_the_reapers_word_is_lifted_by_a_beating_vm() -> None:
    """LeaseExpired goes when we hold the lease and the service is healthy."""
    cluster, vm = moored()

    def expire(thing: dict) -> None:  # type: ignore[type-arg]
        thing["status"]["conditions"] = [
            {"type": "Healthy", "status": "False", "reason": "LeaseExpired"}
        ]

    cluster.edit(Kind.ENTRY, WEB, expire)
    vm.watch()
    vm.register()
    assert health(cluster) == "True"


def test_a_forgotten_version_is_listed_anew() -> None:
    """410: the observer lists, and what was deleted meanwhile comes back."""
    cluster, vm = moored()
    cluster.remove(Kind.ENTRY, WEB)
    cluster.forget_history()
    assert vm.observer.reconcile().again >= 1.0
    vm.watch()
    vm.register()
    assert health(cluster) == "True"


def test_an_interrupted_pass_is_finished_by_the_next_process() -> None:
    """Killed after any single write, a new agent ends in the same world without knowing."""
    for survived in range(6):
        cluster = FakeCluster()
        vm = Vm(cluster)
        vm.serve(service("api", 9090), service("web"))
        vm.judge(api=True, web=False)
        vm.beat_once()
        left = [survived]

        def die(verb: str, name: str, left: list[int] = left) -> None:
            if verb in ("apply", "status"):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

        cluster.before = die
        try:
            vm.register()
        except KeyboardInterrupt:
            cluster.before = lambda *_: None
        after = vm.boot("b1")
        after.serve(service("api", 9090), service("web"))
        after.moor(api=True, web=False)
        assert (health(cluster, "api.vm1"), health(cluster)) == ("True", "False")


def test_a_lost_answer_is_found_by_the_next_pass() -> None:
    """The write went through, its answer did not: 409, read, nothing left to do."""
    cluster, vm = moored()
    cluster.lose = lambda verb, _: errors.Unavailable("cut") if verb == "status" else None
    vm.judge(web=False)
    with pytest.raises(errors.Unavailable):
        vm.register()
    cluster.lose = lambda *_: None
    vm.register()
    assert health(cluster) == "False"
    assert vm.registered.get()[0].health == "False"


def test_a_moved_vm_moves_its_entries() -> None:
    """A new address is an update of the same entry, once nobody else has it."""
    cluster, vm = moored()
    vm.address = "10.0.0.7"
    vm.serve(service("web"))
    assert vm.register().waiting
    vm.beat_once()
    vm.register()
    thing = cluster.there(Kind.ENTRY, WEB)
    assert thing is not None
    assert thing["spec"]["address"] == "10.0.0.7"
    assert health(cluster) == "True"


def test_in_and_out_are_events() -> None:
    """What `kubectl describe` shows of the past; nothing for what did not change."""
    cluster, vm = moored(web=True)
    vm.judge(web=False)
    vm.register()
    vm.register()
    assert cluster.events == ["ServiceIn", "ServiceOut"]


def test_a_leaving_entry_that_somebody_else_deletes_is_done() -> None:
    """Between out and away it is gone already: nothing is left to do, and nothing to hurry for."""
    cluster, vm = moored(api=True, web=True)
    vm.serve(service("web"))
    vm.register()
    cluster.remove(Kind.ENTRY, "api.vm1")
    vm.watch()
    assert vm.register().again > 60


def test_a_failing_neighbour_keeps_no_verdict_waiting() -> None:
    """While one entry is refused, the health of another is still written, and first."""
    cluster = FakeCluster()
    cluster.put(Kind.ENTRY, {"metadata": {"name": "api.vm1"}, "spec": {"address": "10.9.9.9"}})
    vm = Vm(cluster)
    vm.serve(service("api", 9090), service("web"))
    with pytest.raises(errors.Rejected):
        vm.moor(api=True, web=True)
    cluster.calls.clear()
    vm.judge(api=True, web=False)
    with pytest.raises(errors.Rejected):
        vm.register()
    assert cluster.calls[0] == ("status", WEB)


def test_a_damaged_note_counts_as_none() -> None:
    """The file of the last boot is unreadable: out first, which is the safe side."""
    cluster, vm = moored()
    vm.disk.files["/var/lib/vmoor/verdicts.json"] = b"{"
    after = vm.boot("b1")
    after.moor(web=None)
    assert health(cluster) == "False"


def test_what_the_reaper_said_is_lifted_after_a_new_beat_only() -> None:
    """A VM that stood still and goes on: first it beats, then its entry is in the mesh again."""
    cluster = FakeCluster()
    vm = Vm(cluster)
    vm.moor()
    have = cluster.there(Kind.ENTRY, "web.vm1")
    assert have is not None
    vm.clock.pass_by(20)
    body = entry.with_health(
        have, status=False, reason="LeaseExpired", message="silent", wall=vm.clock.wall()
    )
    cluster.apply(Kind.ENTRY, body, force=True, status=True, manager="vmoor-reaper", deadline=5)
    vm.watch()
    assert vm.register().waiting
    assert entry.health_status(cluster.there(Kind.ENTRY, "web.vm1") or {}) == "False"
    vm.beat_once()
    vm.register()
    assert entry.health_status(cluster.there(Kind.ENTRY, "web.vm1") or {}) == "True"
