"""What systemd, and by its STATUS= the agent, is told of the proxy."""

from __future__ import annotations

import re

from vmoor.proxyunit import launcher
from vmoor.proxyunit.readiness import Probe, Told, judge

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


def test_a_slow_answer_must_happen_twice() -> None:
    """One late answer on a busy VM must not take its services out of the mesh."""
    assert _told(OK, SLOW, OK, SLOW, SLOW, OK)[1:] == [
        ("WATCHDOG=1",),
        ("WATCHDOG=1",),
        ("WATCHDOG=1",),
        ("STATUS=not ready: Envoy does not answer", "WATCHDOG=1"),
        ("STATUS=ready", "WATCHDOG=1"),
    ]


def test_the_watchdog_starves_when_a_process_hangs() -> None:
    """Whatever readiness says."""
    assert _told(OK, Probe("Envoy does not answer", alive=False))[1] == ()


def test_only_requests_from_outside_hold_a_stop() -> None:
    """Envoy's /clusters: one line per figure and endpoint."""

    def busy(text: str) -> bool:
        return bool(re.search(launcher.ACTIVE, text))

    assert busy("x\ninbound|8080||::10.0.0.7:8080::rq_active::12\n")
    assert not busy("inbound|8080||::10.0.0.7:8080::rq_active::0\n")
    assert not busy("outbound|80||web::10.0.0.7:8080::rq_active::3\n")
