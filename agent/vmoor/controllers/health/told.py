"""Checks that nobody has to look at: what systemd, the kernel, applications and
the sources tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from vmoor.controllers.health.track import NEVER, Track
from vmoor.model import health, process, ttl
from vmoor.model.discovered import Discovered
from vmoor.model.health import Listening
from vmoor.model.process import ProcessState
from vmoor.model.proxy import UnitState
from vmoor.model.service import ProcessProbe, TtlProbe, UnitProbe
from vmoor.model.ttl import Heard
from vmoor.runtime.cell import Cell

# A unit that was started listens soon or not for long: (age of the waiting, seconds to the next
# look). One look costs 0.3 ms.
LISTEN_LOOKS = ((5.0, 0.05), (60.0, 0.5))


class Told:
    """`listening` gives the ports of now; it is asked when a unit's state alone can't tell."""

    def __init__(
        self,
        discovered: Cell[Discovered],
        units: Cell[Mapping[str, UnitState]],
        processes: Cell[Mapping[str, ProcessState]],
        heard: Cell[Mapping[str, Heard]],
        listening: Callable[[], Listening],
    ) -> None:
        self._discovered = discovered
        self._units = units
        self._processes = processes
        self._heard = heard
        self._listening = listening
        self._heeded: Optional[Sequence[object]] = None

    def forget(self) -> None:
        """The tracks are others now: everything told is news."""
        self._heeded = None

    def is_news(self) -> bool:
        """Whether anything was told since the last time."""
        told = (
            self._units.get(), self._processes.get(), self._heard.get(),
            self._discovered.get().told,
        )  # fmt: skip
        if self._heeded is not None and all(a is b for a, b in zip(told, self._heeded)):
            return False
        self._heeded = told
        return True

    def heed(self, track: Track, now: float) -> bool:
        """Also says when to look again. True = its unit has just begun to listen."""
        probe = track.check.probe
        if isinstance(probe, UnitProbe):
            return self._unit(track, probe, now)
        if isinstance(probe, ProcessProbe):
            self._process(track, probe.path, now)
        elif isinstance(probe, TtlProbe):
            self._application(track, probe.ttl, now)
        else:
            self._source(track)
        return False

    def _source(self, track: Track) -> None:
        track.due = NEVER
        said = self._discovered.get().told.get(track.service)
        if said is not None:
            track.saw(said)

    def _unit(self, track: Track, probe: UnitProbe, now: float) -> bool:
        unit = self._units.get().get(probe.unit)
        if unit is None:  # its first reading rings
            track.due = NEVER
            return False
        # Not MainPID: it is told a moment before the state that explains it.
        told = (unit.load, unit.active, unit.sub, unit.invocation_id)
        if told == track.told and now < track.due:
            return False
        track.told = told
        runs = unit.active in health.RUNNING
        if runs and track.healthy and unit.invocation_id != track.life:
            seen = health.unit_restarted(probe)
        else:
            seen = health.unit_probe(probe, unit, self._listening() if runs else Listening())
        track.saw(seen)
        fresh = seen.passed and track.life != unit.invocation_id
        if seen.passed:
            track.life, track.deaf_since = unit.invocation_id, None
            track.due = now + track.check.period
        elif runs:
            track.deaf_since = now if track.deaf_since is None else track.deaf_since
            track.due = now + _patience(now - track.deaf_since, track.check.period)
        else:
            track.deaf_since, track.due = None, NEVER
        return fresh

    def _process(self, track: Track, path: str, now: float) -> None:
        told = self._processes.get().get(path)
        if told is None:  # its first reading rings
            track.due = NEVER
            return
        if told == track.told and now < track.due:
            return
        track.told = told
        seen = process.probe(path, told, track.pid if track.healthy else 0)
        track.saw(seen)
        track.pid = told.pid
        # One that took the place of another is good at the next look.
        again = told.alive and not seen.passed
        track.due = now + LISTEN_LOOKS[0][1] if again else NEVER

    def _application(self, track: Track, seconds: float, now: float) -> None:
        heard = self._heard.get().get(track.service, Heard())
        until = (heard.at if heard.said else track.made) + seconds
        seen = ttl.probe(heard, seconds, expired=now >= until)
        if seen is None:
            track.waits(ttl.SILENT, ttl.waiting(heard))
        else:
            track.saw(seen)
        track.due = until if now < until else NEVER


def _patience(waited: float, period: float) -> float:
    for age, again in LISTEN_LOOKS:
        if waited < age:
            return again
    return max(period, LISTEN_LOOKS[-1][1])
