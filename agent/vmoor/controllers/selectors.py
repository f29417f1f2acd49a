"""Finds out why a healthy service is in no list: who selects it, and who nearly does.

Looks only while there is such a service. The right to read ServiceEntries and Services is optional
(`vmoor admin manifests --with-selectors`); without it the rest is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Forbidden, Rejected
from vmoor.model import entry, registration, selection, sight
from vmoor.model.drain import Drained
from vmoor.model.entry import Owner
from vmoor.model.health import Verdict
from vmoor.model.machine import Machine
from vmoor.model.selection import Candidate, Selection
from vmoor.model.sight import Sight
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALL_S = 5.0
CALM_S = 300.0
# Between two looks, doubled up to 16 minutes: what a Sidecar hides on purpose is unseen for ever.
LOOK_S, DOUBLINGS = 30.0, 5
# For a service that was not looked for yet; who comes meanwhile comes along.
GATHER_S = 3.0


class Selectors:
    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        verdicts: Cell[Mapping[str, Verdict]],
        drained: Cell[Drained],
        sights: Cell[Mapping[str, Sight]],
        selections: Cell[Mapping[str, Selection]],
        machine: Machine,
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._verdicts = verdicts
        self._drained = drained
        self._sights = sights
        self._selections = selections
        self._machine = machine
        self._cluster = cluster
        self._clock = clock
        self._judged: Mapping[str, Selection] = {}
        self._known: frozenset[str] = frozenset()  # unseen, and looked for since they are
        self._looked, self._looks = -LOOK_S, 0

    def reconcile(self) -> Settled:
        settings, sights = self._settings.get(), self._sights.get()
        if settings is None:
            return Settled("waiting for the configuration", CALM_S, waiting=True)
        now = self._clock.now()
        drained = self._drained.get()
        overdue = {
            name: at
            for name, at in sight.overdue(sights, self._verdicts.get()).items()
            if drained.of(name) is None
        }
        unseen = [name for name, at in overdue.items() if now >= at]
        self._known = self._known.intersection(unseen)
        if not self._known.issuperset(unseen):
            self._looks = 0
        if unseen and now >= self._due():
            self._judged = self._look(settings, unseen)
            self._looked, self._looks = now, self._looks + 1
            self._known = frozenset(unseen)
        listed = {name: selection.LISTED for name, seen in sights.items() if seen.listed}
        judged = {name: self._judged[name] for name in unseen if name in self._judged}
        self._selections.set({**listed, **judged})
        soonest = [now + CALM_S, *(at for at in overdue.values() if at > now)]
        if unseen:
            soonest.append(self._due())
        return Settled(f"{len(unseen)} in no list", min(soonest) - now)

    def _due(self) -> float:
        if not self._looks:
            return self._looked + GATHER_S
        return self._looked + LOOK_S * 2.0 ** min(DOUBLINGS, self._looks - 1)

    def _look(self, settings: Settings, unseen: Sequence[str]) -> Mapping[str, Selection]:
        workload, vm = settings.workload, self._machine.name
        owner = Owner(vm, workload.service_account)
        entries = {entry.name(e): e for e in self._list(Kind.ENTRY, owner.selector)}
        found = self._candidates()
        judged = {}
        for name in unseen:
            have = entries.get(registration.entry_name(name, vm))
            if have is None:
                continue
            judged[name] = selection.judge(name, workload.namespace, have, found)
            if judged[name] != self._judged.get(name):
                _tell(name, judged[name])
        return judged

    def _candidates(self) -> Optional[Sequence[Candidate]]:
        """None when we may not look."""
        try:
            entries = self._list(Kind.SERVICE_ENTRY)
            services = self._list(Kind.SERVICE)
        except (Forbidden, Rejected):
            return None
        return [
            *selection.candidates("ServiceEntry", entries),
            *selection.candidates("Service", services),
        ]

    def _list(self, kind: Kind, selector: str = "") -> Sequence[entry.Object]:
        return self._cluster.list(kind, selector, deadline=CALL_S)[0]


def _tell(name: str, judged: Selection) -> None:
    fields = {"VMOOR_EVENT": "service.unselected", "VMOOR_SERVICE": name}
    remedy = f". Remedy: {judged.remedy}" if judged.remedy else ""
    log.warning("%s %s%s", name, judged.words, remedy, extra=fields)
