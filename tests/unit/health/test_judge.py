from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from vmoor.model import health
from vmoor.model.health import CheckState, Health, Lapse, Listening, Probe, Verdict
from vmoor.model.proxy import UNSEEN, ProxyState, UnitState
from vmoor.model.service import Check, HttpProbe, Polled, UnitProbe

LIVE = ProxyState(live=True, words="live")
DOWN = ProxyState(live=False, words="failed: exit-code")
GOOD = Probe(passed=True, words="200 in 1ms")
BAD = Probe(passed=False, words="connection refused")
HTTP = Check("http /", HttpProbe("/", 80), failure_threshold=3, success_threshold=2)
UNIT = UnitProbe("web.service", (8080, 8443))


def after(*probes: Probe, check: Check = HTTP) -> CheckState:
    state = CheckState()
    for probe in probes:
        state = state.after(probe, check)
    return state


@pytest.mark.parametrize(
    ("probes", "expected", "words"),
    [
        ([], Health.UNKNOWN, "not checked yet"),
        ([GOOD], Health.HEALTHY, "200 in 1ms"),
        ([BAD, BAD], Health.UNKNOWN, "connection refused (2/3)"),
        ([BAD, BAD, BAD], Health.UNHEALTHY, "connection refused"),
        ([BAD, GOOD], Health.HEALTHY, "200 in 1ms"),
        ([GOOD, BAD, BAD], Health.HEALTHY, "connection refused (2/3)"),
        ([GOOD, BAD, BAD, BAD], Health.UNHEALTHY, "connection refused"),
        ([GOOD, BAD, BAD, GOOD, BAD, BAD], Health.HEALTHY, "connection refused (2/3)"),
        ([BAD, BAD, BAD, GOOD], Health.UNHEALTHY, "200 in 1ms (1/2)"),
        ([BAD, BAD, BAD, GOOD, GOOD], Health.HEALTHY, "200 in 1ms"),
    ],
)
def test_thresholds(probes: list[Probe], expected: Health, words: str) -> None:
    """One good look is enough at first; bad ones count only in a row, from the first on."""
    state = after(*probes)
    assert (state.health, state.words) == (expected, words)


def test_every_kind_that_is_polled_has_thresholds() -> None:
    """One look may be wrong, whatever it looks at."""
    assert set(health.POLLED) == set(get_args(Polled))


def test_a_unit_check_knows_no_thresholds() -> None:
    """One failed look at a unit is enough, whatever its check says."""
    check = Check("unit web.service", UNIT, failure_threshold=9, success_threshold=9)
    assert after(GOOD, BAD, check=check).health is Health.UNHEALTHY
    assert after(GOOD, BAD, GOOD, check=check).health is Health.HEALTHY


@pytest.mark.parametrize(
    ("unit", "listening", "reason", "words"),
    [
        (
            UnitState("web.service", "loaded", "failed", "failed", result="signal"),
            {8080, 8443}, "UnitDead", "web.service is failed (failed, signal)",
        ),
        (
            UnitState("web.service", load="loaded", active="activating", sub="start"),
            {8080, 8443}, "UnitDead", "web.service is activating (start)",
        ),
        (UnitState("web.service"), set(), "UnitDead", "there is no unit web.service"),
        (
            UnitState("web.service", load="loaded", active="active"),
            {8080}, "NotListening", "web.service runs, but nothing listens on 8443",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_unit(
    unit: UnitState, listening: set[int], reason: str, words: str
) -> None:
    """A unit passes only when it runs and every port of its service listens."""
    probe = health.unit_probe(UNIT, unit, Listening(frozenset(listening)))
    assert (probe.passed, probe.reason, probe.words) == (False, reason, words)


@pytest.mark.parametrize("active", ["active", "reloading"])
def test_a_unit_that_runs_and_listens_passes(active: str) -> None:
    """Also while it reloads: its process serves on."""
    unit = UnitState("web.service", load="loaded", active=active)
    assert health.unit_probe(UNIT, unit, Listening(frozenset((8080, 8443, 22)))).passed


@pytest.mark.parametrize(
    ("checks", "proxy", "expected", "reason"),
    [
        ([GOOD, GOOD], LIVE, Health.HEALTHY, "Passed"),
        ([GOOD, BAD], LIVE, Health.UNHEALTHY, "CheckFailed"),
        ([GOOD, None], LIVE, Health.UNKNOWN, "Checking"),
        ([BAD, None], LIVE, Health.UNHEALTHY, "CheckFailed"),
        ([GOOD, GOOD], DOWN, Health.UNHEALTHY, "ProxyNotReady"),
        ([None], DOWN, Health.UNHEALTHY, "ProxyNotReady"),
        ([BAD], DOWN, Health.UNHEALTHY, "CheckFailed"),
        ([GOOD], UNSEEN, Health.UNKNOWN, "Checking"),
        ([BAD], UNSEEN, Health.UNHEALTHY, "CheckFailed"),
    ],
)
def test_all_checks_and_the_proxy(
    checks: list[Probe], proxy: ProxyState, expected: Health, reason: str
) -> None:
    """Healthy needs every check and a live proxy; a proxy nobody looked at yet is no bad news."""
    states = [after(*[probe] * 3) if probe else CheckState() for probe in checks]
    verdict = health.judge(states, proxy, None, 7.0)
    assert (verdict.health, verdict.reason, verdict.since) == (expected, reason, 7.0)


def test_since_is_that_of_the_health() -> None:
    """Other words for the same health keep the instant; another health sets it."""
    old = Verdict(Health.UNHEALTHY, "CheckFailed", "503, want 200-399", since=5.0)
    assert health.judge([after(BAD, BAD, BAD)], LIVE, old, 9.0).since == 5.0
    assert health.judge([after(GOOD)], LIVE, old, 9.0).since == 9.0


def test_a_check_that_is_not_critical_only_degrades() -> None:
    """The service stays in the mesh while all that fails is not critical; else it goes."""
    minor = Check("http /", HttpProbe("/", 80), failure_threshold=1, critical=False)
    good, bad = after(GOOD), after(BAD, check=minor)
    verdict = health.judge([good, bad], LIVE, None, 5.0)
    words = "degraded: connection refused"
    assert verdict == Verdict(Health.HEALTHY, "Passed", words, 5.0, degraded=True)
    assert not health.judge([good, after(GOOD, check=minor)], LIVE, verdict, 6.0).degraded
    dead = health.judge([after(BAD, BAD, BAD), bad], LIVE, verdict, 6.0)
    assert (dead.health, dead.degraded) == (Health.UNHEALTHY, False)
    assert health.judge([good, bad], DOWN, verdict, 6.0).reason == "ProxyNotReady"


def test_a_lapse_keeps_its_first_reason() -> None:
    """Whatever else failed on the way back; a service that never was healthy has none."""
    bad, good = (Verdict(h, "", "", 0.0) for h in (Health.UNHEALTHY, Health.HEALTHY))
    assert health.remembering(bad, None, 1.0).lapse is None
    assert health.remembering(good, bad, 2.0).lapse is None
    fell = health.remembering(replace(bad, words="refused"), good, 3.0)
    assert fell.lapse == Lapse(3.0, "refused")
    still = health.remembering(replace(bad, words="503"), fell, 4.0)
    unknown = health.remembering(Verdict(Health.UNKNOWN, "", "", 0.0), still, 5.0)
    assert unknown.lapse == Lapse(3.0, "refused")
    assert health.remembering(good, unknown, 6.0).lapse == Lapse(3.0, "refused", ended=6.0)
