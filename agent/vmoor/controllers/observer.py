"""Watches our own entries, so that a quiet registration needs no request at all.

It only reads. One LIST at the start and whenever the server has forgotten our version; one watch
after the other from there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Conflict, VmoorError
from vmoor.model import entry
from vmoor.model.credential import Credentials
from vmoor.model.entry import Owner
from vmoor.model.machine import Machine
from vmoor.model.registration import Observed, Sighting
from vmoor.ports import Change, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

LIST_S = 10.0
CALM_S = 30.0
FLOOR_S = 1.0  # a server that ends each watch at once must not be asked in a busy loop


class Observer:
    """A pass lasts as long as a watch, up to ten minutes: its loop needs that patience."""

    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        observed: Cell[Observed],
        machine: Machine,
        cluster: Cluster,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._observed = observed
        self._machine = machine
        self._cluster = cluster
        self._version = ""  # where the next watch goes on; "" = list first

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None or self._credentials.get() is None:
            return Settled("waiting for identity", CALM_S, waiting=True)
        owner = Owner(self._machine.name, settings.workload.service_account)
        if not self._version:
            self._list(owner)
            return Settled("listed", 0.0)
        try:
            for change in self._cluster.watch(Kind.ENTRY, owner.selector, self._version):
                self._take(change)
        except VmoorError as e:
            self._observed.set(replace(self._observed.get(), live=False))
            if isinstance(e, Conflict):
                self._version = ""
                return Settled("listing anew", FLOOR_S)
            raise
        return Settled("watching", FLOOR_S)

    def _list(self, owner: Owner) -> None:
        things, version = self._cluster.list(Kind.ENTRY, owner.selector, deadline=LIST_S)
        old = self._observed.get()
        seen = {entry.name(thing): Sighting(entry.version(thing), thing) for thing in things}
        self._observed.set(Observed(live=True, lists=old.lists + 1, sightings=seen))
        self._version = version

    def _take(self, change: Change) -> None:
        old = self._observed.get()
        self._version = entry.version(change.object)
        sightings = dict(old.sightings)
        if change.type != "BOOKMARK":
            thing = None if change.type == "DELETED" else change.object
            sightings[entry.name(change.object)] = Sighting(self._version, thing)
        self._observed.set(replace(old, live=True, sightings=sightings))
