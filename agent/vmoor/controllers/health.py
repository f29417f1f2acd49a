"""Looks at every service and says whether it may be in the mesh.

Probes run in a pool; checks of units and processes are decided here and at once from what was told
of them. Nothing is polled but what a check asks for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Optional, Protocol

from vmoor.model import flap, health, process
from vmoor.model.discovered import Discovered
from vmoor.model.flap import Flap
from vmoor.model.health import CheckState, Listening, Probe, Verdict
from vmoor.model.process import ProcessState
from vmoor.model.proxy import ProxyState, UnitState
from vmoor.model.service import Check, ProcessProbe, Service, ToldProbe, UnitProbe
from vmoor.ports import Clock, Prober
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled
from vmoor.runtime.pool import Done

log = logging.getLogger(__name__)

NEVER = float("inf")
CALM_S = 300.0
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
    told: object = None  # what was told of its unit or process at the last look
    life: str = ""  # InvocationID in which the unit was healthy
    pid: int = 0  # with which the process was healthy
    deaf_since: Optional[float] = None  # since when it runs without listening


class Probes(Protocol):
    """runtime.pool.Pool as this controller needs it."""

    def submit(self, key: Track, call: Callable[[], Probe]) -> None: ...

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
        self._tracks: Mapping[str, Sequence[Track]] = {}
        self._ports_of: Mapping[str, Sequence[int]] = {}
        self._flaps: Mapping[str, Flap] = {}
        self._listening: Optional[Listening] = None  # read at most once per pass

    def reconcile(self) -> Settled:
        now = self._clock.now()
        self._listening = None
        services = self._discovered.get().services
        self._tracks = {s.name: self._tracked(s, now) for s in services}
        self._ports_of = {s.name: tuple(s.ports.values()) for s in services}
        bugs = self._collect()
        again = CALM_S
        for track in (t for tracks in self._tracks.values() for t in tracks):
            self._look(track, now)
            if not track.running:
                again = min(again, max(0.0, track.due - now))
        again = min(again, self._publish(now))
        if bugs:
            raise bugs[0]
        return Settled(self._words(), again, waiting=not services)

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

    def _collect(self) -> Sequence[Exception]:
        bugs = []
        for done in self._probes.take():
            done.key.running = False
            if done.result is not None:
                done.key.state = done.key.state.after(done.result, done.key.check)
            if done.error is not None:
                bugs.append(done.error)
        return bugs

    def _look(self, track: Track, now: float) -> None:
        check = track.check
        probe = check.probe
        if isinstance(probe, UnitProbe):
            self._look_at_unit(track, probe, now)
        elif isinstance(probe, ProcessProbe):
            self._look_at_process(track, probe.path, now)
        elif isinstance(probe, ToldProbe):
            self._hear(track)
        elif now >= track.due and not track.running:
            # The first look is at once, the phase is drawn with the second: services that came
            # together are not looked at together for ever.
            track.due = now + check.period * (1.0 if track.looked else 1.0 - self._random())
            track.looked = track.running = True
            polled, timeout = probe, check.timeout
            self._probes.submit(track, lambda: self._prober.look(polled, timeout))

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
            track.life, track.deaf_since = unit.invocation_id, None
            track.due = now + track.check.period
        elif runs:
            track.deaf_since = now if track.deaf_since is None else track.deaf_since
            track.due = now + _patience(now - track.deaf_since, track.check.period)
        else:
            track.deaf_since, track.due = None, NEVER

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

    def _publish(self, now: float) -> float:
        """How long until a service that is held out may come back."""
        old, proxy = self._verdicts.get(), self._proxy_state.get()
        fresh, flaps, again = {}, {}, NEVER
        for name, tracks in self._tracks.items():
            judged = self._reachable(
                name, health.judge([t.state for t in tracks], proxy, old.get(name), now), old
            )
            flaps[name], fresh[name], left = flap.damped(
                self._flaps.get(name, Flap()), judged, old.get(name), now
            )
            again = min(again, left or NEVER)
        self._flaps = flaps
        self._verdicts.set(fresh)
        for name, verdict in fresh.items():
            before = old.get(name)
            was = (before.health, before.degraded) if before else (health.Health.UNKNOWN, False)
            if (verdict.health, verdict.degraded) != was:
                _tell(name, verdict)
        return again

    def _reachable(self, name: str, judged: Verdict, old: Mapping[str, Verdict]) -> Verdict:
        """Looked at when a service would come in: its checks may go by way of loopback."""
        was = old.get(name)
        if judged.health is not health.Health.HEALTHY or (
            was is not None and was.health is health.Health.HEALTHY
        ):
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


def _tell(name: str, verdict: Verdict) -> None:
    level = logging.WARNING if verdict.health is health.Health.UNHEALTHY else logging.INFO
    fields = {"VMOOR_EVENT": f"service.{verdict.health.value}", "VMOOR_SERVICE": name}
    log.log(level, "%s is %s: %s", name, verdict.health.value, verdict.words, extra=fields)
