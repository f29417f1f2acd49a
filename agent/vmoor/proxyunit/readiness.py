"""What the launcher tells systemd: pure, fed with what the probes found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from vmoor import proxyunit

# A probe that was merely slow would take a whole VM's services out of the mesh, and an Envoy that
# takes in a huge push answers late for 10 to 20 s. The fourth in a row counts.
_SLOW_TOLERATED = 3


@dataclass(frozen=True)
class Probe:
    """`reason` is None when ready; `hard` = nobody listens, which needs no second look."""

    reason: Optional[str]
    hard: bool = False
    alive: bool = False  # pilot-agent and Envoy both answer something


@dataclass(frozen=True)
class Told:
    """What systemd knows so far."""

    ready: bool = False
    status: str = proxyunit.STARTING
    misses: int = 0


def judge(told: Told, probe: Probe) -> tuple[Told, tuple[str, ...]]:
    """The state after a probe, and the lines for sd_notify."""
    lines: list[str] = []
    misses = 0 if probe.reason is None else told.misses + 1
    status = _status(told, probe, misses)
    ready = told.ready or probe.reason is None
    if status != told.status:
        lines.append(f"STATUS={status}")
    # Not readiness: a drain, or an istiod that is away, is no reason to be killed. Before the
    # first readiness no rules are in force, and a proxy that hangs harms nobody.
    if not told.ready or probe.alive:
        lines.append("WATCHDOG=1")
    return Told(ready, status, misses), tuple(lines)


def _status(told: Told, probe: Probe, misses: int) -> str:
    if probe.reason is None:
        return proxyunit.READY
    if not told.ready:
        return f"{proxyunit.STARTING}: {probe.reason}"
    if probe.hard or misses > _SLOW_TOLERATED:
        return f"{proxyunit.NOT_READY}: {probe.reason}"
    return told.status
