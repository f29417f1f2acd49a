"""The same promises of port Cluster, held by the fake and by the real API server.

What the controllers converge on is proved on both here, so that the unit tests' fake is honest.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count, islice
from typing import Any, Optional, Union

import pytest
from vmoor import errors
from vmoor.adapters.kube import Kube, of_agent
from vmoor.model import entry, lease, registration
from vmoor.model.machine import Machine
from vmoor.model.registration import Place, Word
from vmoor.model.service import Workload
from vmoor.ports import Change, Kind, Object

from tests.fakes.cluster import FakeCluster
from tests.rig import inside
from tests.rig.rig import Rig
from tests.unit.registration.world import (
    OWNER,
    WALL,
    WORKLOAD,
    Vm,
    credentials,
    service,
)

D = 10.0
MACHINE = Machine("vm1", "m1", "b1")
PLACE = Place(OWNER, MACHINE.holder, WORKLOAD, "10.0.0.1")
NUMBERS = count()
NAMES = {Kind.ENTRY: "workloadentry", Kind.LEASE: "lease"}


class FakeSide:
    """The fake, and what others do to it."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()

    def create(self, kind: Kind, body: Mapping[str, Any]) -> None:
        self.cluster.put(kind, body)

    def merge(self, kind: Kind, name: str, patch: Mapping[str, Any]) -> None:
        self.cluster.edit(kind, name, lambda thing: _merge(thing, patch))

    def delete(self, kind: Kind, name: str) -> None:
        self.cluster.remove(kind, name)

    def forget(self) -> str:
        version = self.cluster.list(Kind.ENTRY, OWNER.selector, deadline=D)[1]
        self.cluster.forget_history()
        return version


class InNamespace:
    """Kube whose sockets are made inside the rig's network."""

    def __init__(self, rig: Rig, kube: Kube) -> None:
        self._rig = rig
        self._kube = kube

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._kube, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return inside.call(self._rig.network.netns_path, lambda: method(*args, **kwargs))

        return call

    def watch(self, kind: Kind, selector: str, version: str) -> Iterator[Change]:
        changes = self._kube.watch(kind, selector, version)
        while True:
            change = inside.call(self._rig.network.netns_path, lambda: next(changes, None))
            if change is None:
                return
            yield change


class RealSide:
    """The API server, and what an administrator does to it."""

    def __init__(self, rig: Rig, namespace: str) -> None:
        self._rig = rig
        self._namespace = namespace
        self.cluster = InNamespace(rig, kube(rig, rig.kube.token, namespace))
        rig.kubectl("create", "namespace", namespace)

    def create(self, kind: Kind, body: Mapping[str, Any]) -> None:
        self._kubectl("create", "-f", "-", text=json.dumps(body))

    def merge(self, kind: Kind, name: str, patch: Mapping[str, Any]) -> None:
        part = ["--subresource=status"] if "status" in patch else []
        self._kubectl(
            "patch", NAMES[kind], name, "--type=merge", f"--patch={json.dumps(patch)}", *part
        )

    def delete(self, kind: Kind, name: str) -> None:
        self._kubectl("delete", NAMES[kind], name, "--wait=false")

    def forget(self) -> str:
        return "1"

    def _kubectl(self, *args: str, text: Optional[str] = None) -> None:
        self._rig.kubectl("-n", self._namespace, *args, input=text)


Connect = Callable[..., InNamespace]
Side = Union[FakeSide, RealSide]


def kube(rig: Rig, token: str, namespace: str, servers: Sequence[str] = ()) -> Kube:
    known = credentials(servers or [rig.kube.url], rig.kube.ca, token)
    return Kube(of_agent(lambda: known, lambda: Workload(namespace, "web", "web")))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    if request.param == "fake":
        yield FakeSide()
        return
    real = RealSide(request.getfixturevalue("rig"), f"shop-{next(NUMBERS)}")
    yield real
    real.cluster.close()


@pytest.fixture
def connect(rig: Rig) -> Iterator[Connect]:
    """Adapters for a token, a namespace and perhaps other servers."""
    with ExitStack() as stack:

        def made(token: str, namespace: str, *servers: str) -> InNamespace:
            adapter = kube(rig, token, namespace, servers)
            stack.callback(adapter.close)
            return InNamespace(rig, adapter)

        yield made


def _merge(thing: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            thing.pop(key, None)
        elif isinstance(value, dict) and isinstance(thing.get(key), dict):
            _merge(thing[key], value)
        else:
            thing[key] = copy.deepcopy(value)


def web(weight: Optional[int] = None) -> Object:
    return registration.desired(service("web", weight=weight), PLACE)


def made(side: Side, weight: Optional[int] = None) -> Object:
    return side.cluster.apply(Kind.ENTRY, web(weight), force=False, deadline=D)


def said(side: Side, thing: Object, *, healthy: bool) -> Object:
    body = registration.says(thing, Word(healthy, "Because", "words"), WALL)
    return side.cluster.apply(Kind.ENTRY, body, force=True, status=True, deadline=D)


def against(body: Object, thing: Object) -> Object:
    return {**body, "metadata": {**body["metadata"], **entry.judged(thing)}}


def beat(old: Optional[Object] = None, wall: float = WALL) -> Object:
    renewed = lease.micro_time(wall)
    return lease.body(old, machine=MACHINE, owner=OWNER, duration=10, renewed=renewed)


def test_what_is_not_there_is_none(side: Side) -> None:
    """A GET of nothing is an answer, not an error."""
    assert side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D) is None
    assert side.cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D) is None


def test_a_lease_comes_back_as_it_was_sent(side: Side) -> None:
    """A timed-out PUT is recognised by its renewTime: it must come back character by character."""
    sent = beat(wall=WALL + 0.1)
    side.cluster.create(Kind.LEASE, sent, deadline=D)
    got = side.cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D)
    assert got is not None
    assert got["spec"] == sent["spec"]
    assert OWNER.owns(got)


def test_only_one_creates_a_lease(side: Side) -> None:
    """Of two creations the second is a conflict."""
    side.cluster.create(Kind.LEASE, beat(), deadline=D)
    with pytest.raises(errors.Conflict):
        side.cluster.create(Kind.LEASE, beat(), deadline=D)


def test_a_lease_is_replaced_by_its_newest_version_only(side: Side) -> None:
    """The lock: who has not judged the newest version cannot write over it."""
    first = side.cluster.create(Kind.LEASE, beat(), deadline=D)
    second = side.cluster.replace(Kind.LEASE, beat(first, WALL + 3), deadline=D)
    with pytest.raises(errors.Conflict):
        side.cluster.replace(Kind.LEASE, beat(first, WALL + 6), deadline=D)
    side.cluster.replace(Kind.LEASE, beat(second, WALL + 6), deadline=D)


def test_a_beat_takes_marks_away(side: Side) -> None:
    """A PUT without an annotation removes it: tombstones and confirmations end at a beat."""
    first = side.cluster.create(Kind.LEASE, beat(), deadline=D)
    side.merge(Kind.LEASE, "vmoor-vm1", {"metadata": {"annotations": {"vmoor.io/tombstone": "x"}}})
    marked = side.cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D)
    assert marked is not None
    assert marked["metadata"]["annotations"]["vmoor.io/tombstone"] == "x"
    assert entry.version(first) != entry.version(marked)
    after = side.cluster.replace(Kind.LEASE, beat(marked, WALL + 3), deadline=D)
    assert "vmoor.io/tombstone" not in (after["metadata"].get("annotations") or {})


def test_a_deleted_lease_is_a_conflict(side: Side) -> None:
    """A PUT does not bring back what somebody removed: that is judged first."""
    first = side.cluster.create(Kind.LEASE, beat(), deadline=D)
    side.delete(Kind.LEASE, "vmoor-vm1")
    with pytest.raises(errors.Conflict):
        side.cluster.replace(Kind.LEASE, beat(first, WALL + 3), deadline=D)


def test_an_applied_entry_is_as_wanted(side: Side) -> None:
    """After one creation there is no further step, and a second apply is no new version."""
    first = made(side)
    wish = registration.Wish("web.vm1", "web", web(), None)
    assert registration.step(wish, first, OWNER, WALL) is None
    again = side.cluster.apply(Kind.ENTRY, against(web(), first), force=True, deadline=D)
    assert entry.version(again) == entry.version(first)


def test_creation_does_not_take_what_is_somebody_elses(side: Side) -> None:
    """Between our 404 and our creation somebody made one: a conflict, and it stays theirs."""
    theirs = {
        "apiVersion": entry.API_VERSION,
        "kind": "WorkloadEntry",
        "metadata": {"name": "web.vm1"},
        "spec": {"address": "10.9.9.9"},
    }
    side.create(Kind.ENTRY, theirs)
    with pytest.raises(errors.Conflict):
        made(side)
    there = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    assert there is not None
    assert there["spec"] == {"address": "10.9.9.9"}


def test_an_update_needs_the_newest_version(side: Side) -> None:
    """By force, but only over what was judged."""
    first = made(side)
    side.merge(Kind.ENTRY, "web.vm1", {"spec": {"address": "10.9.9.9"}})
    with pytest.raises(errors.Conflict):
        side.cluster.apply(Kind.ENTRY, against(web(), first), force=True, deadline=D)
    newest = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    assert newest is not None
    mended = side.cluster.apply(Kind.ENTRY, against(web(), newest), force=True, deadline=D)
    assert mended["spec"]["address"] == "10.0.0.1"


def test_what_we_owned_and_want_no_more_goes(side: Side) -> None:
    """A weight taken out of the configuration is a step, and the apply removes it."""
    first = made(side, weight=5)
    wish = registration.Wish("web.vm1", "web", web(), None)
    step = registration.step(wish, first, OWNER, WALL)
    assert step is not None
    second = side.cluster.apply(Kind.ENTRY, step.body, force=True, deadline=D)
    assert "weight" not in second["spec"]
    assert registration.step(wish, second, OWNER, WALL) is None


def test_what_others_added_stays(side: Side) -> None:
    """Somebody's weight is theirs: no step, no fight."""
    made(side)
    side.merge(Kind.ENTRY, "web.vm1", {"spec": {"weight": 7}})
    there = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    wish = registration.Wish("web.vm1", "web", web(), None)
    assert registration.step(wish, there, OWNER, WALL) is None


def test_health_is_written_beside_the_conditions_of_others(side: Side) -> None:
    """The list is atomic: another's condition is there after our write, and spec is untouched."""
    made(side)
    other = {"type": "Checked", "status": "True", "reason": "Theirs"}
    side.merge(Kind.ENTRY, "web.vm1", {"status": {"conditions": [other]}})
    there = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    assert there is not None
    after = said(side, there, healthy=True)
    assert other in after["status"]["conditions"]
    assert entry.health_status(after) == "True"
    assert after["spec"] == there["spec"]
    assert entry.health_status(said(side, after, healthy=False)) == "False"


def test_health_needs_the_newest_version(side: Side) -> None:
    """Two writers of Healthy: who judged an older object is refused."""
    first = made(side)
    said(side, first, healthy=True)
    with pytest.raises(errors.Conflict):
        said(side, first, healthy=False)


def test_an_update_leaves_health_alone(side: Side) -> None:
    """Spec and status have a life of their own."""
    after = said(side, made(side), healthy=True)
    body = against(web(weight=3), after)
    assert (
        entry.health_status(side.cluster.apply(Kind.ENTRY, body, force=True, deadline=D)) == "True"
    )


def test_a_deleted_entry_is_a_conflict(side: Side) -> None:
    """Neither an update nor a health write brings back what somebody removed."""
    first = made(side)
    side.delete(Kind.ENTRY, "web.vm1")
    with pytest.raises(errors.Conflict):
        side.cluster.apply(Kind.ENTRY, against(web(weight=2), first), force=True, deadline=D)
    with pytest.raises(errors.Conflict):
        said(side, first, healthy=True)
    assert side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D) is None


def test_a_delete_needs_what_was_judged(side: Side) -> None:
    """Another version or another object of that name is not deleted; gone already is fine."""
    first = made(side)
    second = said(side, first, healthy=False)
    for uid, version in (
        (entry.uid(first), entry.version(first)),
        ("00000000-0000-0000-0000-000000000000", entry.version(second)),
    ):
        with pytest.raises(errors.Conflict):
            side.cluster.delete(
                Kind.ENTRY, "web.vm1", uid=uid, resource_version=version, deadline=D
            )
    for _ in range(2):
        side.cluster.delete(
            Kind.ENTRY,
            "web.vm1",
            uid=entry.uid(second),
            resource_version=entry.version(second),
            deadline=D,
        )
    assert side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D) is None


def test_a_watch_goes_on_from_a_list(side: Side) -> None:
    """What others do after the LIST is told: a change, the loss of our mark, a deletion."""
    made(side)
    things, version = side.cluster.list(Kind.ENTRY, OWNER.selector, deadline=D)
    assert [entry.name(t) for t in things] == ["web.vm1"]
    side.merge(Kind.ENTRY, "web.vm1", {"spec": {"address": "10.9.9.9"}})
    side.merge(Kind.ENTRY, "web.vm1", {"metadata": {"labels": {entry.MANAGED_BY: "me"}}})
    side.merge(Kind.ENTRY, "web.vm1", {"metadata": {"labels": {entry.MANAGED_BY: "vmoor"}}})
    side.delete(Kind.ENTRY, "web.vm1")
    changes = list(islice(side.cluster.watch(Kind.ENTRY, OWNER.selector, version), 4))
    moved, unmarked, _, gone = (c.type for c in changes)
    assert (moved, unmarked, gone) == ("MODIFIED", "DELETED", "DELETED")
    assert changes[0].object["spec"]["address"] == "10.9.9.9"


def test_a_watch_from_a_forgotten_version_is_a_conflict(side: Side) -> None:
    """Too old: the observer has to list anew."""
    version = side.forget()
    made(side)
    with pytest.raises(errors.Conflict):
        list(islice(side.cluster.watch(Kind.ENTRY, OWNER.selector, version), 1))


def test_a_long_list_of_all_namespaces_comes_in_pages(
    rig: Rig, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the reaper asks for: everything marked, whatever the page's size, and a watch of it."""
    monkeypatch.setattr("vmoor.adapters.kube.PAGE", 2)
    names = [f"pages-{next(NUMBERS)}" for _ in range(3)]
    for name in names:
        rig.kubectl("create", "namespace", name)
        own = connect(rig.kube.token, name)
        for vm in ("vm1", "vm2"):
            place = Place(entry.Owner(vm, "web"), "h", WORKLOAD, "10.0.0.1")
            body = registration.desired(service("web"), place)
            own.apply(Kind.ENTRY, body, force=False, deadline=D)
    everywhere = connect(rig.kube.token, "")
    selector = f"{entry.MANAGED_BY}={entry.OWNER}"
    things, version = everywhere.list(Kind.ENTRY, selector, deadline=D)
    found = [str(entry.metadata(t)["namespace"]) for t in things]
    assert [found.count(name) for name in names] == [2, 2, 2]
    rig.kubectl("delete", "workloadentry", "web.vm1", "-n", names[0], "--wait=false")
    (gone,) = islice(everywhere.watch(Kind.ENTRY, selector, version), 1)
    assert (gone.type, entry.metadata(gone.object)["namespace"]) == ("DELETED", names[0])


def test_a_vm_moors_is_repaired_and_leaves(side: Side) -> None:
    """The whole life of an entry with the real controllers: in, mended, recreated, out, gone."""
    vm = Vm(side.cluster)
    vm.judge(web=True)
    vm.beat_once()
    vm.register()
    assert [(s.state, s.health) for s in vm.registered.get()] == [("registered", "True")]
    side.merge(Kind.ENTRY, "web.vm1", {"spec": {"address": "10.9.9.9"}})
    vm.clock.pass_by(31)  # no watch here: everything is read again
    vm.beat_once()
    vm.register()
    mended = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    assert mended is not None
    assert mended["spec"]["address"] == "10.0.0.1"
    side.delete(Kind.ENTRY, "web.vm1")
    vm.clock.pass_by(31)
    vm.beat_once()
    vm.register()
    again = side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D)
    assert again is not None
    assert entry.health_status(again) == "True"
    assert vm.leaving.leave(10) == ()
    assert side.cluster.get(Kind.ENTRY, "web.vm1", deadline=D) is None
    assert side.cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D) is None


def test_a_refused_token_names_its_generation(connect: Connect) -> None:
    """So that identity drops exactly that one."""
    cluster = connect("nobodys-token", "default")
    with pytest.raises(errors.Unauthenticated) as caught:
        cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D)
    assert caught.value.generation == 7
    assert "nobodys-token" not in str(caught.value)


def test_a_missing_right_is_named_with_its_remedy(
    rig: Rig, connect: Callable[..., InNamespace]
) -> None:
    """Verb, resource, namespace, and the command that grants it."""
    rig.kubectl("create", "namespace", "bare")
    rig.kubectl("-n", "bare", "create", "serviceaccount", "web-vmoor")
    token = rig.kubectl("-n", "bare", "create", "token", "web-vmoor").strip()
    cluster = connect(token, "bare")
    with pytest.raises(errors.Forbidden) as caught:
        cluster.apply(Kind.ENTRY, web(), force=False, deadline=D)
    assert "patch workloadentries" in caught.value.message
    assert "in namespace bare" in caught.value.message
    assert "vmoor admin manifests --namespace bare --service-account web" in caught.value.remedy
    with pytest.raises(errors.Forbidden):
        next(cluster.watch(Kind.ENTRY, OWNER.selector, "0"))


def test_a_missing_namespace_is_told(rig: Rig, connect: Connect) -> None:
    """Not "not found", but what is not there."""
    cluster = connect(rig.kube.token, "nowhere")
    for write in (
        lambda: cluster.create(Kind.LEASE, beat(), deadline=D),
        lambda: cluster.apply(Kind.ENTRY, web(), force=False, deadline=D),
    ):
        with pytest.raises(errors.Rejected, match="namespace nowhere does not exist"):
            write()


def test_an_invalid_object_is_rejected_with_the_servers_words(
    rig: Rig, connect: Callable[..., InNamespace]
) -> None:
    """The schema's sentence reaches the person."""
    cluster = connect(rig.kube.token, "default")
    body = registration.desired(service("web", port=70000), PLACE)
    with pytest.raises(errors.Rejected, match="port"):
        cluster.apply(Kind.ENTRY, body, force=False, deadline=D)


def test_a_refusal_by_admission_is_quoted(rig: Rig, connect: Connect) -> None:
    """A policy's own message, not a missing right."""
    policy = {"apiVersion": "admissionregistration.k8s.io/v1"}
    name = {"metadata": {"name": "no-guests"}}
    rules = [
        {
            "apiGroups": ["networking.istio.io"],
            "apiVersions": ["*"],
            "operations": ["CREATE"],
            "resources": ["workloadentries"],
        }
    ]
    spec = {
        "matchConstraints": {"resourceRules": rules},
        "matchConditions": [
            {"name": "guest", "expression": "object.metadata.name == 'guest.vm1'"}
        ],
        "validations": [{"expression": "false", "message": "guests are not welcome"}],
    }
    binding = {"policyName": "no-guests", "validationActions": ["Deny"]}
    for kind, content in (("", spec), ("Binding", binding)):
        thing = {**policy, "kind": f"ValidatingAdmissionPolicy{kind}", **name, "spec": content}
        rig.kubectl("apply", "-f", "-", input=json.dumps(thing))
    cluster = connect(rig.kube.token, "default")
    body = registration.desired(service("guest"), PLACE)

    def refused() -> str:
        try:
            thing = cluster.apply(Kind.ENTRY, body, force=False, deadline=D)
        except errors.Rejected as e:
            return e.message
        cluster.delete(
            Kind.ENTRY,
            "guest.vm1",
            uid=entry.uid(thing),
            resource_version=entry.version(thing),
            deadline=D,
        )
        return ""

    # The API server takes a moment to read a new policy.
    said_so = next(filter(None, (refused() for _ in range(500))))
    assert "guests are not welcome" in said_so


def test_the_next_server_is_asked_when_the_first_is_away(
    rig: Rig, connect: Callable[..., InNamespace]
) -> None:
    """And stays the first to be asked."""
    nobody = "https://198.18.0.1:6444"
    cluster = connect(rig.kube.token, "default", nobody, rig.kube.url)
    for _ in range(2):
        assert cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D) is None


def test_what_people_see_of_a_service(rig: Rig, connect: Connect) -> None:
    """The events are valid ones, and stand with the entry."""
    rig.kubectl("create", "namespace", "seen")
    vm = Vm(connect(rig.kube.token, "seen"))
    vm.judge(web=True)
    vm.beat_once()
    vm.register()
    vm.clock.pass_by(1)
    vm.judge(web=False)
    vm.register()
    described = rig.kubectl("-n", "seen", "describe", "workloadentry", "web.vm1")
    assert "ServiceIn" in described
    assert "ServiceOut" in described


@pytest.mark.parametrize(
    ("code", "headers", "expected"),
    [(429, {"Retry-After": "7"}, 7.0), (500, {}, None), (503, {"Retry-After": "2"}, 2.0)],
)
def test_an_overloaded_server_is_unavailable(
    rig: Rig,
    connect: Connect,
    code: int,
    headers: Mapping[str, str],
    expected: Optional[float],
) -> None:
    """With its own wish for how long to wait."""
    with rig.fault_proxy(rig.kube.url) as proxy:
        cluster = connect(rig.kube.token, "default", proxy.url)
        proxy.status(code, headers, "not json")
        with pytest.raises(errors.Unavailable) as caught:
            cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D)
        assert caught.value.retry_after == expected
        proxy.clear()
        assert cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D) is None


@pytest.mark.parametrize("fault", ["drip", "hang", "refuse"])
def test_a_deadline_holds(rig: Rig, connect: Connect, fault: str) -> None:
    """Whatever the server does, the call ends in time; and goes on when the fault is over."""
    with rig.fault_proxy(rig.kube.url) as proxy:
        cluster = connect(rig.kube.token, "default", proxy.url)
        cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D)
        {"drip": lambda: proxy.drip(0.3), "hang": proxy.hang, "refuse": proxy.refuse}[fault]()
        begun = time.monotonic()
        with pytest.raises(errors.Unavailable):
            cluster.get(Kind.LEASE, "vmoor-vm1", deadline=1.0)
        assert time.monotonic() - begun < 1.5
        proxy.clear()
        assert cluster.get(Kind.LEASE, "vmoor-vm1", deadline=D) is None


def test_a_put_whose_answer_was_cut_is_recognised(rig: Rig, connect: Connect) -> None:
    """The beat went through, the answer hung: the next pass knows its own renewTime."""
    rig.kubectl("create", "namespace", "cut")
    with rig.fault_proxy(rig.kube.url) as proxy:
        vm = Vm(connect(rig.kube.token, "cut", proxy.url))
        vm.beat_once()
        vm.clock.pass_by(8.9)  # a second is left for the beat
        proxy.drip(1.0, match="^PUT")
        with pytest.raises(errors.Unavailable):
            vm.beat_once()
        proxy.clear()
        vm.beat_once()
        assert vm.lock.get().held
        assert not vm.lock.get().refused
