"""The sources on this VM that tell at once: units' markers and listening ports.

Neither fails the other: what one cannot do is a problem of its own, told by discovery.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

from vmoor.config import marker
from vmoor.config.settings import Settings
from vmoor.errors import VmoorError
from vmoor.model.discovered import Found
from vmoor.model.proxy import UnitState
from vmoor.model.service import Service
from vmoor.ports import Clock
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

CALM_S = 300.0
LOOK_S = 1.0  # listeners tell nobody without privilege
PATIENCE_S = 10.0  # for systemd at the start; then what is known counts
MEND = "mend the line, then: systemctl daemon-reload"
UNREAD = Found(ready=False)


class Outside(NamedTuple):
    """How the world is asked."""

    markers: Callable[[], Mapping[str, Sequence[marker.Text]]]
    listening: Callable[[], frozenset[int]]


@dataclass(frozen=True)
class Cells:
    systemd: Cell[Found] = field(default_factory=lambda: Cell(UNREAD))
    sockets: Cell[Found] = field(default_factory=lambda: Cell(UNREAD))


class Sources:
    """Writes `cells`. `reloads` counts what may have changed unit files; 0 = no systemd yet."""

    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        states: Cell[Mapping[str, UnitState]],
        reloads: Cell[int],
        cells: Cells,
        outside: Outside,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._states = states
        self._reloads = reloads
        self._cells = cells
        self._outside = outside
        self._patient_until = 0.0  # counts from systemd's first answer
        self._clock = clock
        self._scanned: object = None
        self._marked: tuple[Service, ...] = ()
        self._problems: tuple[str, ...] = ()
        self._heard: frozenset[int] = frozenset()

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None:
            return Settled("waiting for the configuration", CALM_S, waiting=True)
        units, sockets = settings.sources.systemd, settings.sources.sockets
        cells = self._cells
        soon = (
            self._look(cells.systemd, None if units is None else lambda: self._units(units)),
            self._look(cells.sockets, None if sockets is None else lambda: self._ports(sockets)),
        )
        return Settled("looked", min(soon))

    def _look(self, cell: Cell[Found], look: Optional[Callable[[], Found]]) -> float:
        """Seconds until the next look."""
        if look is None:
            cell.set(Found())
            return CALM_S
        try:
            cell.set(look())
        except VmoorError as e:
            cell.set(replace(cell.get(), problems=(str(e),), remedy=e.remedy, ready=True))
            return LOOK_S
        told = cell is self._cells.systemd and cell.get().ready  # by signals
        return CALM_S if told else LOOK_S

    def _units(self, patterns: tuple[str, ...]) -> Found:
        """A unit's services exist until it is stopped: a crashed one is there, and unhealthy."""
        scan = (self._reloads.get(), patterns)
        if scan != self._scanned:
            self._scan(patterns)
            self._scanned = scan
        states = self._states.get()
        units = tuple(sorted({s.unit for s in self._marked}))
        alive = {u for u in units if u in states and states[u].active != "inactive"}
        if not self._reloads.get():  # systemd has not answered at all
            return self._cells.systemd.get()
        now = self._clock.now()
        self._patient_until = self._patient_until or now + PATIENCE_S
        patient = now < self._patient_until
        # A unit that came later is waited for by nobody: its services are new.
        was_ready = self._cells.systemd.get().ready
        ready = was_ready or not patient or all(unit in states for unit in units)
        services = tuple(s for s in self._marked if s.unit in alive)
        remedy = MEND if self._problems else ""
        return Found(services, {}, self._problems, remedy, units, ready)

    def _scan(self, patterns: tuple[str, ...]) -> None:
        services: list[Service] = []
        problems: list[str] = []
        for unit, texts in sorted(self._outside.markers().items()):
            if not any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns):
                continue
            if unit.endswith("@.service"):
                problems.append(f"{texts[0].file}: write {marker.KEY} to a drop-in of an instance")
                continue
            found, wrong = marker.services(unit, texts)
            services += found
            problems += wrong
        self._marked, self._problems = tuple(services), tuple(problems)

    def _ports(self, allowed: tuple[Service, ...]) -> Found:
        """One look may fall between two lives of a listener, so it takes two to leave."""
        now = self._outside.listening()
        there, self._heard = now | self._heard, now
        return Found(tuple(s for s in allowed if there.issuperset(s.ports.values())))
