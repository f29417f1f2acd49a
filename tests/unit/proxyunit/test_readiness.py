"""What systemd, and by its STATUS= the agent, is told of the proxy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vmoor.proxyunit import launcher, local
from vmoor.proxyunit.readiness import Probe, Told, judge

ROOT = Path(__file__).parents[3]
OK = Probe(None, alive=True)
REFUSED = Probe("Envoy does not listen", hard=True, alive=True)
SLOW = Probe("Envoy does not answer", alive=True)


def _told(*probes: Probe) -> list[tuple[str, ...]]:
    told, lines = Told(), []
    for probe in probes:
        told, said = judge(told, probe)
        lines.append(said)
    return lines


def test_ready_is_told_once() -> None:
    """The word the agent waits for, at the first readiness."""
    assert _told(REFUSED, OK, OK) == [
        ("STATUS=starting: Envoy does not listen", "WATCHDOG=1"),
        ("STATUS=ready", "WATCHDOG=1"),
        ("WATCHDOG=1",),
    ]


def test_nobody_is_killed_before_the_first_readiness() -> None:
    """istiod may be away for hours, and no rules are in force yet: the watchdog is fed."""
    assert _told(SLOW, Probe("Envoy does not answer", alive=False))[1] == ("WATCHDOG=1",)


def test_nobody_listening_is_told_at_once() -> None:
    """A refused connection is a fact."""
    assert _told(OK, REFUSED)[1] == ("STATUS=not ready: Envoy does not listen", "WATCHDOG=1")


def test_the_fourth_slow_answer_in_a_row_counts() -> None:
    """Some late answers on a busy VM must not take its services out of the mesh."""
    fed = ("WATCHDOG=1",)
    assert _told(OK, SLOW, SLOW, SLOW, OK, SLOW, SLOW, SLOW, SLOW, OK)[1:] == [
        *[fed] * 7,
        ("STATUS=not ready: Envoy does not answer", "WATCHDOG=1"),
        ("STATUS=ready", "WATCHDOG=1"),
    ]


def test_the_watchdog_starves_when_a_process_hangs() -> None:
    """Whatever readiness says."""
    assert _told(OK, Probe("Envoy does not answer", alive=False))[1] == ()


def test_a_huge_push_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy's main thread may be silent for 20 s: readiness gets 2 s, the sign of life more, and
    a look that began too early leaves time for another one before systemd's watchdog ends it."""
    asked: list[tuple[int, float]] = []

    def ask(port: int, path: str, *, method: str = "GET", timeout: float = 1.0) -> int:
        asked.append((port, timeout))
        if port == local.READINESS:
            raise OSError("late")
        return 503

    monkeypatch.setattr(local, "ask", ask)
    assert launcher.probe(ready_before=True) == SLOW
    assert asked == [(local.READINESS, 2.0), (local.AGENT, 5.0), (local.ADMIN, 5.0)]
    unit = (ROOT / "packaging/systemd/vmoor-proxy.service").read_text()
    watchdog = re.search(r"^WatchdogSec=(\d+)s$", unit, re.MULTILINE)
    assert watchdog
    look = launcher.RUNNING_S + sum(timeout for _, timeout in asked)
    assert 2 * look < float(watchdog.group(1))


def test_only_requests_from_outside_hold_a_stop() -> None:
    """Envoy's /clusters: one line per figure and endpoint."""

    def busy(text: str) -> bool:
        return bool(re.search(launcher.ACTIVE, text))

    assert busy("x\ninbound|8080||::10.0.0.7:8080::rq_active::12\n")
    assert not busy("inbound|8080||::10.0.0.7:8080::rq_active::0\n")
    assert not busy("outbound|80||web::10.0.0.7:8080::rq_active::3\n")
