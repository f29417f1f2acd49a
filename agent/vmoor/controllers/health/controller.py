"""Looks at every service and says whether it may be in the mesh.

Probes run in a pool; checks of units and processes, and what applications say of themselves, are
decided at once from what was told. Nothing is polled but what a check asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Protocol

from vmoor.controllers.health.told import Told
from vmoor.controllers.health.track import Schedule, Track
from vmoor.controllers.health.verdicts import Verdicts
from vmoor.model import health
from vmoor.model.discovered import Discovered
from vmoor.model.health import Listening, Probe, Verdict
from vmoor.model.process import ProcessState
from vmoor.model.proxy import ProxyState, UnitState
from vmoor.model.service import Polled, Service
from vmoor.model.ttl import Heard
from vmoor.ports import Clock
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled
from vmoor.runtime.pool import Done, Ticket

CALM_S = 300.0
GRACE_S = 5.0  # a look that runs longer beyond its timeout hangs: a file on a dead network mount
# Looks begin together on it, those of slow checks on the tenth of a second: a wake-up costs as
# much as a look.
GRID_S = 0.05
SLOW_S = 1.0
WORDS_S = 5.0  # how old the words of a verdict may be whose checks say the same again and again
ROUNDING = 1e-6


class Probes(Protocol):
    """adapters.probes.Probes as this controller needs it."""

    def submit(
        self, key: Track, probe: Polled, timeout: float, *, quiet: Callable[[Probe], bool]
    ) -> Ticket:
        """One look, which ends after `timeout` seconds whatever the other side does."""
        ...

    def take(self) -> Sequence[Done[Track, Probe]]: ...

    def give_up(self, ticket: Ticket) -> None:
        """It hangs, and must not stand in the way of others."""
        ...

    def listening(self) -> Listening:
        """What listens now. Raises LocalFault."""
        ...


class Health:
    """`probes` looks in threads of its own and rings this loop's bell when one has ended.

    `random` draws from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        discovered: Cell[Discovered],
        unit_states: Cell[Mapping[str, UnitState]],
        process_states: Cell[Mapping[str, ProcessState]],
        heard: Cell[Mapping[str, Heard]],
        proxy_state: Cell[ProxyState],
        verdicts: Cell[Mapping[str, Verdict]],
        probes: Probes,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._discovered = discovered
        self._probes = probes
        self._clock = clock
        self._random = random
        self._told = Told(discovered, unit_states, process_states, heard, self._listens)
        self._verdicts = Verdicts(verdicts, proxy_state, self._listens)
        self._services: Optional[tuple[Service, ...]] = None
        self._tracks: Mapping[str, Sequence[Track]] = {}
        self._schedule = Schedule()
        self._dirty: set[str] = set()  # services to be judged anew in this pass
        self._listening: Optional[Listening] = None  # read at most once per pass

    def reconcile(self) -> Settled:
        """Touches only what is due or has changed: 200 checks a second are many passes."""
        now = self._clock.now()
        self._listening, self._dirty = None, set()
        self._renew(now)
        bugs = self._collect(now)
        self._heed(now)
        while (track := self._schedule.take(now)) is not None:
            self._look(track, now)
        self._verdicts.judge(self._tracks, self._dirty, now)
        if bugs:
            raise bugs[0]
        soonest = min(self._verdicts.next_due(), self._schedule.next_due())
        again = min(CALM_S, max(0.0, soonest - now))
        return Settled(self._verdicts.words(), again, waiting=not self._tracks)

    def _renew(self, now: float) -> None:
        services = self._discovered.get().services
        if services is self._services:
            return
        self._services = services
        old = [track for tracks in self._tracks.values() for track in tracks]
        self._tracks = {s.name: self._tracked(s, now) for s in services}
        self._dirty = set(self._tracks)
        self._verdicts.renew(services, now)
        for track in old:
            track.gone = True
        self._schedule.clear()
        self._told.forget()
        for track in (track for tracks in self._tracks.values() for track in tracks):
            track.gone = False
            self._schedule.add(track)

    def _tracked(self, service: Service, now: float) -> Sequence[Track]:
        """A check that did not change keeps what is known of it."""
        old = {id(t): t for t in self._tracks.get(service.name, ())}
        tracks = []
        for check in service.checks:
            same = next((t for t in old.values() if t.check == check), None)
            if same is not None:
                del old[id(same)]
            tracks.append(same or Track(service.name, check, now + check.initial_delay, now))
        return tracks

    def _collect(self, now: float) -> Sequence[Exception]:
        bugs = []
        for done in self._probes.take():
            track = done.key
            track.running = None
            if track.void:
                track.void, track.due = False, now
                self._schedule.add(track)
            elif done.result is not None:
                if self._is_news(track, done.result) or now >= track.stale:
                    self._dirty.add(track.service)
                    track.stale = now + WORDS_S
                track.saw(done.result)
            if done.error is not None:
                bugs.append(done.error)
        return bugs

    def _is_news(self, track: Track, probe: Probe) -> bool:
        """A service that is out for another reason may come in again by any good look."""
        return not (track.is_no_news(probe) and self._verdicts.is_healthy(track.service))

    def _heed(self, now: float) -> None:
        if not self._told.is_news():
            return
        for tracks in self._tracks.values():
            for track in tracks:
                if not isinstance(track.check.probe, health.POLLED):
                    self._look(track, now)

    def _look(self, track: Track, now: float) -> None:
        probe = track.check.probe
        if isinstance(probe, health.POLLED):
            self._probe(track, probe, now)
        else:
            former = track.life
            fresh = self._told.heed(track, now)
            self._dirty.add(track.service)
            if fresh:
                self._hasten(track.service, now, restarted=bool(former))
        self._schedule.add(track)

    def _probe(self, track: Track, probe: Polled, now: float) -> None:
        # The first look is at once, the phase is drawn with the second: services that came
        # together are not looked at together for ever.
        period, timeout = track.check.period, track.check.timeout
        due = now + period * (1.0 if track.looked else 1.0 - self._random())
        grid = GRID_S if period < SLOW_S else 2 * GRID_S
        track.due = math.ceil(due / grid - ROUNDING) * grid
        if track.running is not None:  # one look at a time
            self._wait_for(track, track.running, now)
            return
        track.began, track.looked = now, True
        track.running = self._probes.submit(track, probe, timeout, quiet=track.is_no_news)

    def _wait_for(self, track: Track, running: Ticket, now: float) -> None:
        """That others are in front of it is no news."""
        if not running.begun:
            track.began = now
        elif now - track.began > track.check.timeout + GRACE_S:
            self._probes.give_up(running)
            track.saw(Probe(passed=False, words="no answer: the look hangs"))
            self._dirty.add(track.service)

    def _hasten(self, service: str, now: float, *, restarted: bool) -> None:
        """Its unit has just begun to listen: the other checks need not wait for their period.

        That they passed in its former life lets nobody back into the mesh.
        """
        for track in self._tracks.get(service, ()):
            if isinstance(track.check.probe, health.POLLED) and track.looked:
                if restarted:
                    track.void = track.running is not None
                if restarted and track.healthy:
                    track.forget("not checked since the restart")
                track.due = min(track.due, now)
                self._schedule.add(track)

    def _listens(self) -> Listening:
        if self._listening is None:
            self._listening = self._probes.listening()
        return self._listening
