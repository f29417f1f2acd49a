"""From single probes to a verdict. Times are Clock.now() seconds."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional, get_args

from vmoor.model.proxy import UNSEEN, ProxyState, UnitState
from vmoor.model.service import Check, Polled, UnitProbe

# A unit in one of these ActiveStates has a running main process.
RUNNING = ("active", "reloading", "refreshing")
HIDDEN = "LoopbackOnly"
# One look may be wrong, so thresholds count; an event is not.
POLLED = get_args(Polled)


class Health(enum.Enum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Probe(NamedTuple):
    """One look: went well or not, and the words for it ("200 in 4ms", "connection refused")."""

    passed: bool
    words: str
    reason: str = "CheckFailed"  # what a verdict says when it did not pass
    critical: bool = True  # False = what failed only degrades the service


@dataclass(frozen=True)
class CheckState:
    """What is known of one check: its health, and how many looks in a row say otherwise."""

    health: Health = Health.UNKNOWN
    streak: int = 0
    words: str = "not checked yet"
    reason: str = "Checking"
    critical: bool = True

    def after(self, probe: Probe, check: Check) -> CheckState:
        """The state after one more look.

        An unknown check is healthy after its first good look. Bad ones count as ever: after a
        restart of the agent the mesh still holds what was true before.
        """
        seen = Health.HEALTHY if probe.passed else Health.UNHEALTHY
        reason = "Passed" if probe.passed else probe.reason
        critical = check.critical and probe.critical
        if seen is self.health:
            return CheckState(seen, 0, probe.words, reason, critical)
        streak = self.streak + 1
        needed = check.success_threshold if probe.passed else check.failure_threshold
        known_good = probe.passed and self.health is Health.UNKNOWN
        if known_good or not isinstance(check.probe, POLLED) or streak >= needed:
            return CheckState(seen, 0, probe.words, reason, critical)
        words = f"{probe.words} ({streak}/{needed})"
        return replace(self, streak=streak, words=words, critical=check.critical)


@dataclass(frozen=True)
class Lapse:
    """A service that was healthy was not: why it began. `ended` 0 = it lasts."""

    began: float
    words: str
    ended: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The health of one service, and why."""

    health: Health
    reason: str  # a CamelCase word for the entry's condition, such as CheckFailed
    # For people; that they differ ("200 in 4ms") is no news.
    words: str = field(compare=False)
    since: float = 0.0
    degraded: bool = False  # healthy, but a check that is not critical fails
    lapse: Optional[Lapse] = None  # the last one


class Listening(NamedTuple):
    """The TCP ports that anything on this VM listens on.

    `hidden`: those of them that listen on loopback addresses only. Envoy hands a request on to
    the address that it was sent to (since Istio 1.10), so the mesh gets a 503 from these.
    """

    ports: frozenset[int] = frozenset()
    hidden: frozenset[int] = frozenset()


def hidden_probe(ports: Iterable[int], listening: Listening) -> Optional[Probe]:
    """None when the mesh can reach them."""
    hidden = sorted(listening.hidden.intersection(ports))
    if not hidden:
        return None
    words = (
        f"listens on loopback only ({', '.join(map(str, hidden))}), where the mesh cannot reach "
        "it: bind it to 0.0.0.0"
    )
    return Probe(passed=False, words=words, reason=HIDDEN)


def unit_probe(probe: UnitProbe, unit: UnitState, listening: Listening) -> Probe:
    """A dead unit is out at once, a live one that does not listen as well: no thresholds."""
    if unit.active not in RUNNING:
        return Probe(passed=False, words=_dead(probe.unit, unit), reason="UnitDead")
    missing = [str(port) for port in sorted(probe.ports) if port not in listening.ports]
    if missing:
        words = f"{probe.unit} runs, but nothing listens on {', '.join(missing)}"
        return Probe(passed=False, words=words, reason="NotListening")
    hidden = hidden_probe(probe.ports, listening)
    if hidden is not None:
        return hidden
    ports = ", ".join(str(port) for port in sorted(probe.ports))
    return Probe(passed=True, words=f"active, listening on {ports}")


def unit_restarted(probe: UnitProbe) -> Probe:
    """For a unit that is active in another life than the one that was healthy."""
    return Probe(passed=False, words=f"{probe.unit} died and was restarted", reason="UnitDead")


def _dead(name: str, unit: UnitState) -> str:
    if unit.load == "not-found":
        return f"there is no unit {name}"
    why = f", {unit.result}" if unit.result not in ("", "success") else ""
    return f"{name} is {unit.active} ({unit.sub}{why})"


def judge(
    checks: Sequence[CheckState], proxy: ProxyState, old: Optional[Verdict], now: float
) -> Verdict:
    """All checks AND the proxy, which is asked each time and never remembered."""
    failing = [s for s in checks if not s.critical and s.health is Health.UNHEALTHY]
    health, reason, words = _judged([s for s in checks if s not in failing], proxy)
    degraded = health is Health.HEALTHY and bool(failing)
    if degraded:
        words = "degraded: " + "; ".join(state.words for state in failing)
    same = old is not None and old.health is health
    since = old.since if old is not None and same else now
    return Verdict(health, reason, words, since, degraded)


def remembering(verdict: Verdict, old: Optional[Verdict], now: float) -> Verdict:
    """The verdict with the last lapse, which the old one or this very change tells."""
    lapse = old.lapse if old is not None else None
    if verdict.health is Health.UNHEALTHY and old is not None and old.health is Health.HEALTHY:
        lapse = Lapse(now, verdict.words)
    elif verdict.health is Health.HEALTHY and lapse is not None and not lapse.ended:
        lapse = replace(lapse, ended=now)
    return replace(verdict, lapse=lapse)


def _judged(checks: Sequence[CheckState], proxy: ProxyState) -> tuple[Health, str, str]:
    for state in checks:
        if state.health is Health.UNHEALTHY:
            return Health.UNHEALTHY, state.reason, state.words
    # Before anyone looked at it, its state is no news: an agent's restart changes nothing.
    if proxy != UNSEEN and not proxy.live:
        return Health.UNHEALTHY, "ProxyNotReady", f"the proxy is not ready: {proxy.words}"
    for state in checks:
        if state.health is Health.UNKNOWN:
            return Health.UNKNOWN, state.reason, state.words
    if proxy == UNSEEN:
        return Health.UNKNOWN, "Checking", "the proxy has not been looked at yet"
    return Health.HEALTHY, "Passed", "; ".join(state.words for state in checks)
