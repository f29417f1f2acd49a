from __future__ import annotations

import logging
from typing import Optional

import pytest
from vmoor import errors
from vmoor.runtime.bell import Bell
from vmoor.runtime.loop import Loop, Settled


class Stopped:
    """A clock that moves only when a test says so."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at


class Script:
    """Gives or raises one item per pass; the last one for ever."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)

    def __call__(self) -> Settled:
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        assert isinstance(step, Settled)
        return step


def loop(*steps: object, refused: Optional[list[errors.Unauthenticated]] = None) -> Loop:
    hook = refused.append if refused is not None else None
    return Loop("identity", Script(*steps), Bell(), Stopped(), refused=hook)


def test_good_pass_waits_as_long_as_it_says() -> None:
    """A pass that settled is repeated after exactly the time it asked for."""
    assert loop(Settled("fine", 42.0)).turn() == 42.0


def test_failures_double_up_to_half_a_minute() -> None:
    """Whoever failed often is asked seldom, but never less than every 36 s."""
    failing = loop(errors.Unavailable("cannot reach vault"))
    delays = [failing.turn() for _ in range(12)]
    assert 0.8 <= delays[0] <= 1.2
    assert all(24.0 <= delay <= 36.0 for delay in delays[6:])


def test_a_loop_may_bound_its_patience() -> None:
    """The heartbeat never waits longer than a beat: entries may be written again at once."""
    beat = Loop(
        "heartbeat", Script(errors.Unavailable("away")), Bell(), Stopped(), longest=lambda: 3.0
    )
    assert all(beat.turn() <= 3.6 for _ in range(12))


def test_success_forgets_the_failures() -> None:
    """The first failure after a good pass waits one second again."""
    bumpy = loop(
        *[errors.Unavailable("cannot")] * 6, Settled("fine", 9.0), errors.Unavailable("x")
    )
    for _ in range(7):
        bumpy.turn()
    assert bumpy.turn() <= 1.2


def test_a_recovery_rings_those_who_wait_for_it() -> None:
    """Once for each end of a failure, not for each good pass."""
    away, fine = errors.Unavailable("away"), Settled("fine", 9.0)
    bumpy, bell = loop(fine, away, away, fine, fine), Bell()
    bumpy.recoveries.rings(bell)
    rung = []
    for _ in range(5):
        bell.clear()
        bumpy.turn()
        rung.append(bell.wait(0))
    assert rung == [False, False, False, True, False]


def test_peer_may_ask_for_more_patience() -> None:
    """Retry-After of the API server is obeyed."""
    assert loop(errors.Unavailable("cannot", retry_after=17.0)).turn() == 17.0


def test_first_conflict_is_judged_anew_at_once() -> None:
    """A lost race is read and judged again without waiting; a second one in a row backs off."""
    racing = loop(errors.Conflict("someone wrote first"))
    assert racing.turn() == 0.0
    assert racing.turn() > 0.5


def test_refused_credential_is_reported_once_per_refusal() -> None:
    """A 401 reaches identity with the generation of the very credential that was refused."""
    told: list[errors.Unauthenticated] = []
    loop(errors.Unauthenticated("cannot: 401", generation=7), refused=told).turn()
    assert [e.generation for e in told] == [7]


def test_unknown_ca_makes_identity_look_for_a_newer_one() -> None:
    """A rotated CA in the mesh facts is read at once, not at the next five minutes."""
    looked: list[str] = []
    loop_ = Loop(
        "heartbeat", Script(errors.Untrusted("cannot reach")), Bell(), Stopped(),
        distrusted=lambda: looked.append("facts"),
    )  # fmt: skip
    loop_.turn()
    assert looked == ["facts"]


def test_standing_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same refusal, tried again and again, is one line in the journal, not one per try."""
    refused = loop(errors.Forbidden("cannot: 403", remedy="vmoor admin manifests"))
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            refused.turn()
    assert [r.getMessage() for r in caplog.records if "403" in r.getMessage()] == [
        caplog.records[0].getMessage()
    ]
    assert "vmoor admin manifests" in caplog.records[0].getMessage()


def test_bug_is_counted_and_the_loop_goes_on() -> None:
    """An exception that nobody foresaw does not end the thread."""
    broken = loop(ValueError("oops"))
    assert broken.turn() > 0
    assert broken.turn() > 0
    assert broken.bugs == 2


def test_outcome_keeps_since_while_nothing_changes() -> None:
    """`since` is when the state began, not when it was last confirmed."""
    steady = loop(Settled("fine", 1.0))
    clock = steady._clock
    assert isinstance(clock, Stopped)
    steady.turn()
    clock.at += 50
    steady.turn()
    assert steady.outcome.get().since == 1000.0


def test_what_a_person_has_to_mend_is_told_once_and_not_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The step fails with the remedy, no next try is promised, and the pass keeps its time."""
    wrong = loop(Settled("api has no port", 42.0, wrong=True, remedy="declare one"))
    assert [wrong.turn(), wrong.turn()] == [42.0, 42.0]
    outcome = wrong.outcome.get()
    assert (outcome.state, outcome.words, outcome.remedy) == (
        "fail", "api has no port", "declare one",
    )  # fmt: skip
    assert outcome.next_try == 0.0
    assert [r.getMessage() for r in caplog.records] == [
        "identity: Api has no port. Remedy: declare one"
    ]


def test_a_failure_counts_from_the_first_whatever_it_says() -> None:
    """`since` must not move because a command tells the time in its message."""
    failing = loop(errors.Unavailable("at 12:00"), errors.Unavailable("at 12:01"))
    clock = failing._clock
    assert isinstance(clock, Stopped)
    failing.turn()
    clock.at += 60
    failing.turn()
    outcome = failing.outcome.get()
    assert (outcome.words, outcome.since) == ("at 12:01", 1000.0)
