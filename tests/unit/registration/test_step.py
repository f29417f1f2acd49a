"""One entry, decided: what is wanted, what is there, what is the next step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmoor.model import entry, registration
from vmoor.model.entry import Owner
from vmoor.model.health import Health, Verdict
from vmoor.model.machine import Machine
from vmoor.model.registration import Place, Step, Verb, Wish, Word
from vmoor.model.service import Check, TcpProbe
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import OWNER, WALL, WORKLOAD, service

PLACE = Place(OWNER, "m1/b1", WORKLOAD, "10.0.0.1", locality="eu/a")
BODY = registration.desired(service("web", tier="front"), PLACE)
IN, OUT = Word(True, "Passed", "fine"), Word(False, "CheckFailed", "refused")


def there(health: Optional[Word] = None, **spec: Any) -> dict[str, Any]:
    thing: dict[str, Any] = copy.deepcopy(dict(BODY))
    thing["metadata"].update(resourceVersion="5", uid="u1")
    thing["spec"].update(spec)
    if health is not None:
        thing["status"] = registration.says(thing, health, WALL)["status"]
    return thing


def wish(word: Optional[Word] = None, *, wanted: bool = True) -> Wish:
    return Wish("web.vm1", "web", BODY if wanted else None, word)


def step(wanted: Wish, have: Optional[Mapping[str, Any]]) -> Optional[Step]:
    return registration.step(wanted, have, OWNER, WALL)


GONE = wish(wanted=False)


@pytest.mark.parametrize(
    ("wanted", "have", "verb"),
    [
        (wish(IN), None, Verb.CREATE),
        (wish(IN), there(), Verb.STATUS),
        (wish(OUT), there(), Verb.STATUS),
        (wish(None), there(), None),
        (wish(IN), there(IN), None),
        (wish(OUT), there(OUT), None),
        (wish(None), there(IN), None),
        (wish(None), there(OUT), None),
        (wish(OUT), there(IN), Verb.STATUS),
        (wish(IN), there(Word(False, "LeaseExpired", "silent")), Verb.STATUS),
        (wish(None), there(Word(False, "LeaseExpired", "silent")), None),
        (wish(IN), there(Word(True, "Passed", "other words")), None),
        (wish(IN), there(IN, address="10.9.9.9"), Verb.UPDATE),
        (wish(OUT), there(IN, address="10.9.9.9"), Verb.STATUS),
        (wish(IN), there(OUT, address="10.9.9.9"), Verb.UPDATE),
        (wish(None), there(IN, address="10.9.9.9"), Verb.UPDATE),
        (GONE, None, None),
        (GONE, there(IN), Verb.STATUS),
        (GONE, there(OUT), Verb.DELETE),
        (GONE, there(), Verb.DELETE),
    ],
)
def test_the_next_step(
    wanted: Wish, have: Optional[Mapping[str, Any]], verb: Optional[Verb]
) -> None:
    """Out of the mesh before everything, into it after everything, nothing without a reason."""
    found = step(wanted, have)
    assert (found.verb if found else None) is verb


def test_what_is_no_more_served_goes_out_first() -> None:
    """The delete comes after a Healthy=False that the mesh has seen."""
    found = step(GONE, there(IN))
    assert found is not None
    assert found.word is not None
    assert not found.word.healthy


def test_a_write_carries_the_version_that_was_judged() -> None:
    """Update and status alike."""
    for wanted, have in ((wish(IN), there(address="x")), (wish(OUT), there(IN))):
        found = step(wanted, have)
        assert found is not None
        assert found.body["metadata"]["resourceVersion"] == "5"


def test_conditions_of_others_are_carried_over() -> None:
    """The list is atomic: what we leave out is gone."""
    have = there(IN)
    other = {"type": "Checked", "status": "True"}
    have["status"]["conditions"].insert(0, other)
    found = step(wish(OUT), have)
    assert found is not None
    assert found.body["status"]["conditions"][0] == other
    assert len(found.body["status"]["conditions"]) == 2


def test_the_transition_keeps_its_time() -> None:
    """LastTransitionTime changes with the status, not with the reason."""
    have = there(OUT)
    other = registration.says(have, Word(False, "ProxyDown", "x"), WALL + 60)
    turned = registration.says(have, IN, WALL + 60)
    before = have["status"]["conditions"][0]["lastTransitionTime"]
    assert other["status"]["conditions"][0]["lastTransitionTime"] == before
    assert turned["status"]["conditions"][0]["lastTransitionTime"] == entry.timestamp(WALL + 60)


@pytest.mark.parametrize("fresh", [True, False])
def test_an_unknown_verdict_leaves_the_last_word_unless_that_is_old(*, fresh: bool) -> None:
    """After an agent restart the cluster keeps it; after a boot or a proxy restart it is False."""
    unknown = Verdict(Health.UNKNOWN, "NotChecked", "")
    for verdict in (None, unknown):
        word = registration.word(verdict, fresh=fresh)
        assert (word is not None and not word.healthy) if fresh else word is None


def test_an_entry_says_what_the_mesh_needs() -> None:
    """Fail-closed, with identity, and the mark wins over what a person wrote as label."""
    body = registration.desired(
        service("web", weight=3, **{entry.VM: "other", "app": "mine"}),
        Place(OWNER, "m1/b1", WORKLOAD, "10.0.0.1", "net-a", "eu/a", {"rack": "7"}),
    )
    meta = body["metadata"]
    assert meta["name"] == "web.vm1"
    assert meta["annotations"]["proxy.istio.io/health-checks-enabled"] == "true"
    assert meta["annotations"]["vmoor.io/holder"] == "m1/b1"
    assert meta["labels"][entry.SERVICE] == "web"
    # istiod takes the first entry's labels for the VM's own policies: equal on all entries.
    assert meta["labels"]["app"] == "web"
    assert meta["labels"]["service.istio.io/canonical-revision"] == "v1"
    assert meta["labels"]["rack"] == "7"
    assert OWNER.owns(body)
    assert body["spec"] == {
        "address": "10.0.0.1",
        "ports": {"http": 8080},
        "serviceAccount": "web",
        "network": "net-a",
        "locality": "eu/a",
        "weight": 3,
    }


@pytest.mark.parametrize("label", [entry.MANAGED_BY, entry.VM, entry.SERVICE_ACCOUNT])
def test_all_three_labels_are_the_mark(label: str) -> None:
    """One missing or other: refused when in the way, else left alone."""
    have = there(IN)
    have["metadata"]["labels"][label] = "other"
    found = step(wish(OUT), have)
    assert found is not None
    assert found.verb is Verb.REFUSE
    assert step(GONE, have) is None


ME = Machine("vm1", "m1", "b2")


@pytest.mark.parametrize(
    ("change", "out"),
    [
        (lambda t: None, True),
        (lambda t: t["metadata"]["annotations"].update({entry.HOLDER: "m2/b1"}), False),
        (lambda t: t["metadata"]["annotations"].update({entry.HOLDER: ""}), False),
        (lambda t: t["spec"].update(address="10.9.9.9"), False),
        (lambda t: t["metadata"]["labels"].update({entry.VM: "vm2"}), False),
        (lambda t: t.pop("status"), False),
    ],
    ids=["ours", "another machine", "nobody", "another address", "another VM", "not in the mesh"],
)
def test_before_the_lock_only_what_this_machine_left_is_taken_out(
    change: Any, *, out: bool
) -> None:
    """Our mark, our machine, our present address, and only out."""
    have = there(IN)
    change(have)
    found = registration.exclusion(have, PLACE, ME, WALL)
    assert (found is not None) is out
    if found is not None:
        assert found.word is not None
        assert not found.word.healthy


# -- any world --------------------------------------------------------------------------------

WORDS = st.sampled_from([None, IN, OUT])
LABEL = st.sampled_from(["vmoor", "vm1", "web", "other", None])


@st.composite
def things(draw: st.DrawFn) -> Optional[dict[str, Any]]:
    """An entry of our name as anybody may have left it."""
    if draw(st.booleans()):
        return None
    thing = there(draw(WORDS))
    for label in OWNER.labels:
        if draw(st.integers(0, 3)) == 0:
            thing["metadata"]["labels"][label] = draw(LABEL)
    if draw(st.booleans()):
        thing["spec"] = {"address": draw(st.sampled_from(["10.0.0.1", "10.9.9.9"]))}
    if draw(st.booleans()):
        thing["metadata"]["managedFields"] = [
            {
                "manager": "vmoor",
                "operation": "Apply",
                "fieldsV1": {"f:spec": {"f:weight": {}, "f:ports": {"f:http": {}}}},
            }
        ]
    del thing["metadata"]["resourceVersion"], thing["metadata"]["uid"]
    return thing


def carry_out(cluster: FakeCluster, found: Step) -> None:
    body, name = found.body, entry.name(found.body)
    if found.verb is Verb.DELETE:
        cluster.delete(
            Kind.ENTRY,
            name,
            uid=entry.uid(body),
            resource_version=entry.version(body),
            deadline=1,
        )
        return
    status, force = found.verb is Verb.STATUS, found.verb is not Verb.CREATE
    cluster.apply(Kind.ENTRY, body, force=force, status=status, deadline=1)


@given(things(), WORDS, st.booleans())
def test_every_world_converges_and_then_rests(
    thing: Optional[dict[str, Any]], word: Optional[Word], wanted: bool
) -> None:
    """At most four steps lead to none; each may be the last before an interruption; nothing
    without our mark is ever written to.
    """
    cluster = FakeCluster()
    if thing is not None:
        cluster.put(Kind.ENTRY, thing)
    before = cluster.there(Kind.ENTRY, "web.vm1")
    for _ in range(5):
        have = cluster.there(Kind.ENTRY, "web.vm1")
        found = step(wish(word, wanted=wanted), have)
        if found is None or found.verb is Verb.REFUSE:
            break
        assert have is None or OWNER.owns(have)
        carry_out(cluster, found)
    else:
        pytest.fail("does not converge")
    after = cluster.there(Kind.ENTRY, "web.vm1")
    if before is not None and not OWNER.owns(before):
        assert after == before
    elif not wanted:
        assert after is None
    else:
        assert after is not None
        assert after["spec"]["address"] == "10.0.0.1"
        assert word is None or entry.health_status(after) == str(word.healthy)


def test_owners_do_not_mix() -> None:
    """A VM called a-b and one called b are two."""
    assert not Owner("a-b", "web").owns(BODY)
    assert registration.entry_name("a-b", "c") != registration.entry_name("a", "b-c")


@pytest.mark.parametrize(
    ("weight", "critical", "degraded", "expected"),
    [
        (None, True, False, None),
        (None, False, True, None),
        (8, False, False, 8),
        (8, False, True, 2),
        (3, False, True, 1),
    ],
)
def test_a_degraded_service_weighs_a_quarter(
    weight: Optional[int], critical: bool, degraded: bool, expected: Optional[int]
) -> None:
    checks = (Check("tcp 1", TcpProbe(1), critical=critical),)
    checked = replace(service("web"), checks=checks, weight=weight)
    body = registration.desired(checked, PLACE, degraded=degraded)
    assert body["spec"].get("weight") == expected
