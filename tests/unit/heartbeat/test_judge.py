"""The lock protocol as a table: what is there, what we know, what follows."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from vmoor.model import lease
from vmoor.model.entry import Owner
from vmoor.model.lease import Judgement, Seen, Verdict
from vmoor.model.machine import Machine

ME = Machine("vm1", "m1", "b1")
OWNER = Owner("vm1", "web")
OTHER = "m2/b9"
T1, T2 = "2026-11-24T00:00:01.000000Z", "2026-11-24T00:00:04.000000Z"


def there(
    holder: str, renewed: str = T1, duration: Any = 10, account: str = "web"
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "vmoor-vm1",
            "labels": dict(Owner("vm1", account).labels),
            "resourceVersion": "5",
        },
        "spec": {
            "holderIdentity": holder,
            "renewTime": renewed,
            "leaseDurationSeconds": duration,
        },
    }


def judge(
    found: Optional[dict[str, Any]],
    *,
    seen: Optional[Seen] = None,
    now: float = 100.0,
    sent: str = "",
    alive: bool = False,
) -> Judgement:
    return lease.judge(
        found, machine=ME, owner=OWNER, sent=sent, seen=seen, asked=now, now=now, alive=alive
    )


STOOD = Seen(OTHER, T1, since=90.0)
MOVED = Seen(OTHER, T1, since=95.0, moved=True)


@pytest.mark.parametrize(
    ("found", "seen", "verdict"),
    [
        (None, None, Verdict.CREATE),
        (None, STOOD, Verdict.CREATE),
        (there("m1/b1"), None, Verdict.BEAT),
        (there(""), None, Verdict.BEAT),
        (there(OTHER), None, Verdict.WATCH),
        (there("m1/b0"), None, Verdict.WATCH),
        (there(OTHER), Seen(OTHER, T1, since=90.1), Verdict.WATCH),
        (there(OTHER), STOOD, Verdict.BEAT),
        (there(OTHER, T2), STOOD, Verdict.REFUSE),
        (there("m3/b1"), STOOD, Verdict.REFUSE),
        (there(OTHER), MOVED, Verdict.REFUSE),
        (there(OTHER), Seen(OTHER, T1, since=90.0, moved=True), Verdict.BEAT),
        (there(OTHER, duration=60), STOOD, Verdict.WATCH),
        (there(OTHER, duration=60), Seen(OTHER, T1, since=40.0), Verdict.BEAT),
        (there(OTHER, account="api"), STOOD, Verdict.REFUSE),
        (there("", account="api"), None, Verdict.REFUSE),
    ],
    ids=[
        "nothing",
        "gone while watched",
        "ours",
        "nobody's",
        "foreign, first look",
        "an earlier boot is foreign too",
        "not a whole duration yet",
        "stood for a whole duration",
        "renewed before our eyes",
        "another took it before our eyes",
        "has moved and still may",
        "has moved, then stood for a whole duration",
        "its own duration counts, not ours",
        "sixty seconds stood",
        "another account's, standing",
        "another account's, released",
    ],
)
def test_what_follows(
    found: Optional[dict[str, Any]], seen: Optional[Seen], verdict: Verdict
) -> None:
    """Who lives is refused, who stands still for the whole duration is succeeded."""
    assert judge(found, seen=seen).verdict is verdict


def test_our_lost_put_is_recognised() -> None:
    """The renewTime that we sent is there under our name: it went through."""
    assert judge(there("m1/b1", T2), sent=T2).confirms
    assert not judge(there("m1/b1", T1), sent=T2).confirms
    assert not judge(there(OTHER, T2), sent=T2).confirms


def test_who_took_it_from_us_lives() -> None:
    """A foreign holder after a conflict wrote just now: no watch is needed to refuse."""
    assert judge(there(OTHER), alive=True).verdict is Verdict.REFUSE


def test_time_counts_from_before_the_question() -> None:
    """A slow answer does not prove that the Lease stood until it came."""
    late = lease.judge(
        there(OTHER), machine=ME, owner=OWNER, sent="", seen=STOOD, asked=99.9, now=105.0
    )
    assert late.verdict is Verdict.WATCH


@pytest.mark.parametrize(
    ("written", "believed"), [(10, 10), (60, 60), (100_000, 120), (0, 10), (None, 10), ("x", 10)]
)
def test_a_foreign_duration_is_believed_within_bounds(written: Any, believed: float) -> None:
    """Nobody can lock a name for days."""
    assert lease.believed({"spec": {"leaseDurationSeconds": written}}) == believed


@pytest.mark.parametrize(
    ("age", "deadline"), [(0.0, 9.0), (3.0, 6.0), (8.5, 1.0), (9.5, 1.0), (10.0, 5.0), (60.0, 5.0)]
)
def test_a_beat_may_take_what_the_lease_has_left(age: float, deadline: float) -> None:
    """Less a second for one more try; past the lease there is nothing to lose."""
    assert lease.beat_deadline(lease.Beat(at=100.0), 100.0 + age) == pytest.approx(deadline)


def test_a_takeover_is_counted() -> None:
    """LeaseTransitions and acquireTime tell who looks that the holder has changed."""
    old = there(OTHER)
    old["spec"]["leaseTransitions"] = 3
    spec = lease.body(old, machine=ME, owner=OWNER, duration=10, renewed=T2)["spec"]
    assert (spec["leaseTransitions"], spec["acquireTime"]) == (4, T2)
    ours = {**there("m1/b1"), "spec": spec}
    spec = lease.body(ours, machine=ME, owner=OWNER, duration=10, renewed="later")["spec"]
    assert (spec["leaseTransitions"], spec["acquireTime"]) == (4, T2)


def test_beats_are_spread() -> None:
    """3 s, 10 % earlier or later."""
    assert [lease.next_beat(3.0, r) for r in (0.0, 0.5, 1.0)] == pytest.approx([2.7, 3.0, 3.3])
