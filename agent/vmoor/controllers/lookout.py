"""Looks at our own Envoy after each change of an entry, until it agrees with it.

A service that has just entered the mesh would be taken in as plain TCP more often than not
(model/sight.py), so istiod is nudged at once, in the time in which it gathers changes anyway, and
again where Envoy shows that it was in vain. That is the only thing that is written here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Conflict
from vmoor.model import lease, registration, sight
from vmoor.model.discovered import Discovered
from vmoor.model.entry import EntryState, Owner
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.model.sight import Sight
from vmoor.ports import Clock, Cluster, Envoy, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

LOOK_S = 2.0  # one look at most; the listing of a mesh of 5 000 endpoints is 8 MB
# Seconds since the change, and between two looks: istiod gathers changes for 0.1 s.
LOOKS = ((2.0, 0.1), (30.0, 1.0), (600.0, 5.0), (float("inf"), 60.0))
SURE_S = 1.0  # agreement right after a change may be that of before it
SHARE = 10.0  # a look that took long is not repeated before ten times as long
CALM_S = 300.0
# While nothing of ours changes a ServiceEntry may: between two looks, and as a multiple of how
# long one takes, in a mesh of 5 000 endpoints 0.2 s.
WATCH_S, WATCH_SHARE = 30.0, 300.0
# Two looks in a row, so that a push that is just arriving is not taken for one that lacks it.
BLIND_LOOKS = 2
NUDGES = 3  # in a row, in vain; then one each CALM_S
CALL_S = 2.0


class Lookout:
    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        discovered: Cell[Discovered],
        registered: Cell[tuple[EntryState, ...]],
        sights: Cell[Mapping[str, Sight]],
        lock: Cell[Lock],
        beat: Cell[Beat],
        machine: Machine,
        envoy: Envoy,
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._discovered = discovered
        self._registered = registered
        self._sights = sights
        self._lock = lock
        self._beat = beat
        self._machine = machine
        self._envoy = envoy
        self._cluster = cluster
        self._clock = clock
        self._seen: Sequence[EntryState] = ()
        self._nudged = 0.0  # the last entering that was followed by a nudge
        self._changed = 0.0
        self._blind: dict[str, int] = {}  # looks in a row
        self._nudges = 0
        self._nudged_at = 0.0
        self._ending = False

    def end(self) -> None:
        """From the main thread, before a leave: no nudge between its conditional writes."""
        self._ending = True

    def reconcile(self) -> Settled:
        settings, found, entries = (
            self._settings.get(), self._discovered.get(), self._registered.get()
        )  # fmt: skip
        if settings is None or not found.address or not entries:
            return Settled("waiting for registration", CALM_S, waiting=True)
        began = self._clock.now()
        if entries != self._seen:
            self._seen, self._changed, self._nudges = entries, began, 0
        captured = settings.interception.mode != "none"
        entered = max(entries, key=lambda e: e.entered)
        if captured and entered.entered > self._nudged:
            self._nudge(entered.service, settings)
            self._nudged = entered.entered
        clusters = self._envoy.clusters(
            sight.endpoints(found.address, found.services), deadline=LOOK_S
        )
        if clusters is None:
            return Settled("Envoy cannot be asked", self._again(began), waiting=True)
        now = self._clock.now()
        fresh = sight.sights(
            self._sights.get(), clusters, found.address, found.services, entries, now
        )
        self._sights.set(fresh)
        if captured:
            self._see_to(fresh, settings)
        open_ = [name for name, seen in fresh.items() if not seen.agreed]
        if not open_ and now - self._changed >= SURE_S:
            return Settled("Envoy agrees", max(WATCH_S, WATCH_SHARE * (now - began)))
        words = f"not yet in Envoy: {', '.join(open_)}" if open_ else "Envoy agrees so far"
        return Settled(words, self._again(began))

    def _again(self, began: float) -> float:
        now = self._clock.now()
        pause = next(pause for age, pause in LOOKS if now - self._changed < age)
        return max(pause, SHARE * (now - began))

    def _see_to(self, fresh: Mapping[str, Sight], settings: Settings) -> None:
        self._blind = {n: self._blind.get(n, 0) + 1 for n, seen in fresh.items() if seen.blind}
        ripe = [name for name, looks in self._blind.items() if looks >= BLIND_LOOKS]
        if not ripe:
            return
        now = self._clock.now()
        if self._nudges >= NUDGES and now - self._nudged_at < CALM_S:
            return
        self._nudged_at = now
        log.info("istiod gave our proxy no inbound cluster for %s", ripe[0])
        self._blind = {}
        self._nudges += 1
        self._nudge(ripe[0], settings)

    def _nudge(self, service: str, settings: Settings) -> None:
        """One entry is enough: istiod computes all targets of this proxy anew."""
        name = registration.entry_name(service, self._machine.name)
        owner = Owner(self._machine.name, settings.workload.service_account)
        if not self._may_write():
            return
        have = self._cluster.get(Kind.ENTRY, name, deadline=CALL_S)
        if have is None or not owner.owns(have) or not self._may_write():
            return
        beat = self._beat.get()  # what lands after the lease may land on somebody else's entry
        left = min(CALL_S, beat.at + beat.duration - self._clock.now())
        with contextlib.suppress(Conflict):  # somebody wrote: that was as good
            self._cluster.apply(
                Kind.ENTRY, sight.nudged(have), force=True, manager=sight.NUDGER, deadline=left
            )

    def _may_write(self) -> bool:
        now = self._clock.now()
        return not self._ending and lease.may_write(self._lock.get(), self._beat.get(), now)
