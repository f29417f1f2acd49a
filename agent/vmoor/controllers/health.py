"""Looks at every service and says whether it may be in the mesh.

Probes run in a pool; checks of units and processes are decided here and at once from what was told
of them. Nothing is polled but what a check asks for.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

from vmoor.model import flap, health, process
from vmoor.model.discovered import Discovered
from vmoor.model.flap import Flap
from vmoor.model.health import CheckState, Listening, Probe, Verdict
from vmoor.model.process import ProcessState
from vmoor.model.proxy import ProxyState, UnitState
from vmoor.model.service import Check, Polled, ProcessProbe, Service, ToldProbe, UnitProbe
from vmoor.ports import Clock, Prober
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled
from vmoor.runtime.pool import Done

log = logging.getLogger(__name__)

NEVER = float("inf")
CALM_S = 300.0
HIDDEN_S = 5.0  # between two looks whether a service still listens on loopback only
GRACE_S = 5.0  # a look that runs longer beyond its timeout hangs: a file on a dead network mount
# Looks begin together on it: a wake-up costs as much as a look.
GRID_S = 0.02
ROUNDING = 1e-6
# A unit that was started listens soon or not for long: (age of the waiting, seconds to the next
# look). One look costs 0.3 ms.
LISTEN_LOOKS = ((5.0, 0.05), (60.0, 0.5))


@dataclass(eq=False)
class Track:
    """What is remembered of one check of one service."""

    service: str
    check: Check
    due: float
    state: CheckState = field(default_factory=CheckState)
    looked: bool = False
    running: bool = False
    began: float = 0.0  # of the look that runs
    gone: bool = False  # of a service or check that is no more
    told: object = None  # what was told of its unit or process at the last look
    life: str = ""  # InvocationID in which the unit was healthy
    pid: int = 0  # with which the process was healthy
    deaf_since: Optional[float] = None  # since when it runs without listening

    def is_no_news(self, probe: Probe) -> bool:
        """From the probe's thread: a good look at a healthy service changes no verdict."""
        return probe.passed and self.state.health is health.Health.HEALTHY


class Probes(Protocol):
    """runtime.pool.Pool as this controller needs it."""

    def submit(
        self, key: Track, call: Callable[[], Probe], *, quiet: Callable[[Probe], bool]
    ) -> None: ...

    def take(self) -> Sequence[Done[Track, Probe]]: ...


class Health:
    """`probes` runs blocking probes in threads and rings this loop's bell when one has ended.

    `random` draws from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        discovered: Cell[Discovered],
        unit_states: Cell[Mapping[str, UnitState]],
        process_states: Cell[Mapping[str, ProcessState]],
        proxy_state: Cell[ProxyState],
        verdicts: Cell[Mapping[str, Verdict]],
        prober: Prober,
        probes: Probes,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._discovered = discovered
        self._unit_states = unit_states
        self._process_states = process_states
        self._proxy_state = proxy_state
        self._verdicts = verdicts
        self._prober = prober
        self._probes = probes
        self._clock = clock
        self._random = random
        self._services: Optional[tuple[Service, ...]] = None
        self._tracks: Mapping[str, Sequence[Track]] = {}
        self._ports_of: Mapping[str, Sequence[int]] = {}
        self._due: list[tuple[float, int, Track]] = []  # a heap; who was put off is in it twice
        self._order = itertools.count()
        self._heeded: Optional[Sequence[object]] = None
        self._proxy: Optional[ProxyState] = None
        self._dirty: set[str] = set()  # services to be judged anew in this pass
        self._flaps: dict[str, Flap] = {}
        self._held: dict[str, float] = {}  # until when a service is held out
        self._listening: Optional[Listening] = None  # read at most once per pass

    def reconcile(self) -> Settled:
        """Touches only what is due or has changed: 200 checks a second are 200 passes."""
        now = self._clock.now()
        self._listening, self._dirty = None, set()
        self._renew(now)
        bugs = self._collect()
        self._heed(now)
        self._look_at_due(now)
        self._publish(now)
        if bugs:
            raise bugs[0]
        soonest = min([*self._held.values(), self._next_due()])
        again = min(CALM_S, max(0.0, soonest - now))
        return Settled(self._words(), again, waiting=not self._tracks)

    def _renew(self, now: float) -> None:
        services = self._discovered.get().services
        if services is self._services:
            return
        self._services = services
        old = [track for tracks in self._tracks.values() for track in tracks]
        self._tracks = {s.name: self._tracked(s, now) for s in services}
        self._ports_of = {s.name: tuple(s.ports.values()) for s in services}
        self._dirty = set(self._tracks)
        for name, verdict in self._verdicts.get().items():
            if name not in self._tracks:
                was_in = verdict.health is health.Health.HEALTHY
                memory = self._flaps.get(name, Flap())
                self._flaps[name] = flap.vanished(memory, now, was_in=was_in)
        self._flaps = {n: f for n, f in self._flaps.items() if n in self._tracks or f.recent(now)}
        self._held = {name: at for name, at in self._held.items() if name in self._tracks}
        current = [track for tracks in self._tracks.values() for track in tracks]
        for track in old:
            track.gone = True
        self._due, self._heeded = [], None
        for track in current:
            track.gone = False
            self._schedule(track)

    def _tracked(self, service: Service, now: float) -> Sequence[Track]:
        """A check that did not change keeps what is known of it."""
        old = {id(t): t for t in self._tracks.get(service.name, ())}
        tracks = []
        for check in service.checks:
            same = next((t for t in old.values() if t.check == check), None)
            if same is not None:
                del old[id(same)]
            tracks.append(same or Track(service.name, check, due=now + check.initial_delay))
        return tracks

    def _schedule(self, track: Track) -> None:
        if not track.gone and track.due < NEVER:
            heapq.heappush(self._due, (track.due, next(self._order), track))

    def _collect(self) -> Sequence[Exception]:
        bugs = []
        for done in self._probes.take():
            track = done.key
            track.running = False
            self._dirty.add(track.service)
            if done.result is not None:
                track.state = track.state.after(done.result, track.check)
            if done.error is not None:
                bugs.append(done.error)
        return bugs

    def _heed(self, now: float) -> None:
        """Events: units, processes, and what a source tells of its services."""
        told: Sequence[object] = (
            self._unit_states.get(), self._process_states.get(), self._discovered.get().told
        )  # fmt: skip
        if self._heeded is not None and all(a is b for a, b in zip(told, self._heeded)):
            return
        self._heeded = told
        for tracks in self._tracks.values():
            for track in tracks:
                if not isinstance(track.check.probe, health.POLLED):
                    self._look(track, now)

    def _look_at_due(self, now: float) -> None:
        while self._next_due() <= now:
            _, _, track = heapq.heappop(self._due)
            self._look(track, now)

    def _next_due(self) -> float:
        while self._due:
            due, _, track = self._due[0]
            if due == track.due and not track.gone:
                return due
            heapq.heappop(self._due)  # it was put off
        return NEVER

    def _look(self, track: Track, now: float) -> None:
        probe = track.check.probe
        if isinstance(probe, UnitProbe):
            self._look_at_unit(track, probe, now)
            self._schedule(track)
        elif isinstance(probe, ProcessProbe):
            self._look_at_process(track, probe.path, now)
            self._schedule(track)
        elif isinstance(probe, ToldProbe):
            self._hear(track)
        else:
            self._probe(track, probe, now)
        self._dirty.add(track.service)

    def _probe(self, track: Track, probe: Polled, now: float) -> None:
        # The first look is at once, the phase is drawn with the second: services that came
        # together are not looked at together for ever.
        period, timeout = track.check.period, track.check.timeout
        due = now + period * (1.0 if track.looked else 1.0 - self._random())
        track.due = math.ceil(due / GRID_S - ROUNDING) * GRID_S
        self._schedule(track)
        if track.running:  # the pool is busy with others: one look at a time
            if now - track.began > timeout + GRACE_S:
                hangs = Probe(passed=False, words="no answer: the look hangs")
                track.state = track.state.after(hangs, track.check)
            return
        track.began = now
        track.looked = track.running = True
        self._probes.submit(
            track, lambda: self._prober.look(probe, timeout), quiet=track.is_no_news
        )

    def _hear(self, track: Track) -> None:
        track.due = NEVER
        said = self._discovered.get().told.get(track.service)
        if said is not None:
            track.state = track.state.after(said, track.check)

    def _look_at_unit(self, track: Track, probe: UnitProbe, now: float) -> None:
        unit = self._unit_states.get().get(probe.unit)
        if unit is None:  # its first reading rings
            track.due = NEVER
            return
        # Not MainPID: it is told a moment before the state that explains it.
        told = (unit.load, unit.active, unit.sub, unit.invocation_id)
        if told == track.told and now < track.due:
            return
        track.told = told
        runs = unit.active in health.RUNNING
        was_healthy = track.state.health is health.Health.HEALTHY
        if runs and was_healthy and unit.invocation_id != track.life:
            seen = health.unit_restarted(probe)
        else:
            seen = health.unit_probe(probe, unit, self._ports() if runs else Listening())
        track.state = track.state.after(seen, track.check)
        if seen.passed:
            if track.life != unit.invocation_id:
                self._hasten(track.service, now)
            track.life, track.deaf_since = unit.invocation_id, None
            track.due = now + track.check.period
        elif runs:
            track.deaf_since = now if track.deaf_since is None else track.deaf_since
            track.due = now + _patience(now - track.deaf_since, track.check.period)
        else:
            track.deaf_since, track.due = None, NEVER

    def _hasten(self, service: str, now: float) -> None:
        """Its unit has just begun to listen: the other checks need not wait for their period."""
        for track in self._tracks.get(service, ()):
            if isinstance(track.check.probe, health.POLLED) and track.looked:
                track.due = min(track.due, now)
                self._schedule(track)

    def _look_at_process(self, track: Track, path: str, now: float) -> None:
        told = self._process_states.get().get(path)
        if told is None:  # its first reading rings
            track.due = NEVER
            return
        if told == track.told and now < track.due:
            return
        track.told = told
        was_healthy = track.state.health is health.Health.HEALTHY
        seen = process.probe(path, told, track.pid if was_healthy else 0)
        track.state = track.state.after(seen, track.check)
        track.pid = told.pid
        # One that took the place of another is good at the next look.
        again = told.alive and not seen.passed
        track.due = now + LISTEN_LOOKS[0][1] if again else NEVER

    def _ports(self) -> Listening:
        if self._listening is None:
            self._listening = self._prober.listening()
        return self._listening

    def _publish(self, now: float) -> None:
        old, proxy = self._verdicts.get(), self._proxy_state.get()
        names = {*self._dirty, *(name for name, at in self._held.items() if at <= now)}
        if proxy is not self._proxy:
            self._proxy, names = proxy, set(self._tracks)
        fresh = {name: verdict for name, verdict in old.items() if name in self._tracks}
        for name in names & self._tracks.keys():
            states = [track.state for track in self._tracks[name]]
            before = old.get(name)
            judged = self._reachable(name, health.judge(states, proxy, before, now), before)
            memory = self._flaps.get(name, Flap())
            self._flaps[name], fresh[name], left = flap.damped(memory, judged, before, now)
            self._held.pop(name, None)
            if left:
                self._held[name] = now + left
            elif fresh[name].reason == health.HIDDEN:
                self._held[name] = now + HIDDEN_S
        self._verdicts.refresh(fresh)
        for name in names & fresh.keys():
            _tell(name, fresh[name], old.get(name))

    def _reachable(self, name: str, judged: Verdict, was: Optional[Verdict]) -> Verdict:
        """Looked at when a service would come in: its checks may go by way of loopback."""
        healthy = health.Health.HEALTHY
        if judged.health is not healthy or (was is not None and was.health is healthy):
            return judged
        hidden = health.hidden_probe(self._ports_of[name], self._ports())
        if hidden is None:
            return judged
        since = was.since if was and was.health is health.Health.UNHEALTHY else judged.since
        return Verdict(health.Health.UNHEALTHY, hidden.reason, hidden.words, since)

    def _words(self) -> str:
        verdicts = self._verdicts.get()
        if not verdicts:
            return "no services"
        counts = []
        for state in health.Health:
            names = [name for name, v in verdicts.items() if v.health is state]
            if names:
                counts.append(f"{len(names)} {state.value}")
        return ", ".join(counts)


def _patience(waited: float, period: float) -> float:
    for age, again in LISTEN_LOOKS:
        if waited < age:
            return again
    return max(period, LISTEN_LOOKS[-1][1])


def _tell(name: str, verdict: Verdict, before: Optional[Verdict]) -> None:
    was = (before.health, before.degraded) if before else (health.Health.UNKNOWN, False)
    if (verdict.health, verdict.degraded) == was:
        return
    level = logging.WARNING if verdict.health is health.Health.UNHEALTHY else logging.INFO
    fields = {"VMOOR_EVENT": f"service.{verdict.health.value}", "VMOOR_SERVICE": name}
    log.log(level, "%s is %s: %s", name, verdict.health.value, verdict.words, extra=fields)
