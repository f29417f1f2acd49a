"""From the states of a service's checks to its verdict, with hold-down and words."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Optional

from vmoor.controllers.health.track import Track
from vmoor.model import flap, health
from vmoor.model.flap import Flap
from vmoor.model.health import Listening, Verdict
from vmoor.model.proxy import ProxyState
from vmoor.model.service import Service
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

HIDDEN_S = 5.0  # between two looks whether a service still listens on loopback only
Tracks = Mapping[str, Sequence[Track]]  # by service


class Verdicts:
    """The one writer of the cell."""

    def __init__(
        self,
        cell: Cell[Mapping[str, Verdict]],
        proxy: Cell[ProxyState],
        listening: Callable[[], Listening],
    ) -> None:
        self._cell = cell
        self._proxy_cell = proxy
        self._listening = listening
        self._proxy: Optional[ProxyState] = None
        self._ports_of: Mapping[str, Sequence[int]] = {}
        self._flaps: dict[str, Flap] = {}
        self._held: dict[str, float] = {}  # until when a service is held out

    def renew(self, services: Sequence[Service], now: float) -> None:
        """These are the services from now on."""
        self._ports_of = {s.name: tuple(s.ports.values()) for s in services}
        for name, verdict in self._cell.get().items():
            if name not in self._ports_of:
                was_in = verdict.health is health.Health.HEALTHY
                memory = self._flaps.get(name, Flap())
                self._flaps[name] = flap.vanished(memory, now, was_in=was_in)
        self._flaps = {
            n: f for n, f in self._flaps.items() if n in self._ports_of or f.recent(now)
        }
        self._held = {name: at for name, at in self._held.items() if name in self._ports_of}

    def is_healthy(self, name: str) -> bool:
        verdict = self._cell.get().get(name)
        return verdict is not None and verdict.health is health.Health.HEALTHY

    def next_due(self) -> float:
        return min(self._held.values(), default=float("inf"))

    def judge(self, tracks: Tracks, dirty: Collection[str], now: float) -> None:
        """Anew those services whose checks said something, and those whose time has come."""
        old, proxy = self._cell.get(), self._proxy_cell.get()
        names = {*dirty, *(name for name, at in self._held.items() if at <= now)}
        if proxy is not self._proxy:
            self._proxy, names = proxy, set(tracks)
        fresh = {name: verdict for name, verdict in old.items() if name in tracks}
        for name in names & tracks.keys():
            before = old.get(name)
            states = [track.state for track in tracks[name]]
            judged = self._reachable(name, health.judge(states, proxy, before, now), before)
            memory = self._flaps.get(name, Flap())
            self._flaps[name], damped, left = flap.damped(memory, judged, before, now)
            fresh[name] = health.remembering(damped, before, now)
            self._held.pop(name, None)
            if left:
                self._held[name] = now + left
            elif fresh[name].reason == health.HIDDEN:
                self._held[name] = now + HIDDEN_S
        self._cell.refresh(fresh)
        for name in names & fresh.keys():
            _tell(name, fresh[name], old.get(name))

    def _reachable(self, name: str, judged: Verdict, was: Optional[Verdict]) -> Verdict:
        """Looked at when a service would come in: its checks may go by way of loopback."""
        healthy = health.Health.HEALTHY
        if judged.health is not healthy or (was is not None and was.health is healthy):
            return judged
        hidden = health.hidden_probe(self._ports_of[name], self._listening())
        if hidden is None:
            return judged
        since = was.since if was and was.health is health.Health.UNHEALTHY else judged.since
        return Verdict(health.Health.UNHEALTHY, hidden.reason, hidden.words, since)

    def words(self) -> str:
        """How many are how: "3 healthy, 1 unhealthy"."""
        counts = Counter(verdict.health for verdict in self._cell.get().values())
        told = [f"{counts[state]} {state.value}" for state in health.Health if counts[state]]
        return ", ".join(told) or "no services"


def _tell(name: str, verdict: Verdict, before: Optional[Verdict]) -> None:
    was = (before.health, before.degraded) if before else (health.Health.UNKNOWN, False)
    if (verdict.health, verdict.degraded) == was:
        return
    if (was[0], verdict.health) == (health.Health.UNHEALTHY, health.Health.UNKNOWN):
        return  # on its way back, for as long as a look takes
    level = logging.WARNING if verdict.health is health.Health.UNHEALTHY else logging.INFO
    fields = {"VMOOR_EVENT": f"service.{verdict.health.value}", "VMOOR_SERVICE": name}
    log.log(level, "%s is %s: %s", name, verdict.health.value, verdict.words, extra=fields)
