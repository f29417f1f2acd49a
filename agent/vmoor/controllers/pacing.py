"""How often this VM beats, and whether a reaper watches: the Lease vmoor-system/vmoor-fleet.

It is told by the change of its renewTime, never by a clock of somebody else's.
"""

from __future__ import annotations

import logging
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Forbidden
from vmoor.model import lease
from vmoor.model.credential import Credentials
from vmoor.model.lease import INTERVAL_S, Pace
from vmoor.model.reaper import NAMESPACE, fleet
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALM_S = 30.0
CALL_S = 5.0
SOON_S = 1.5 * fleet.PUBLISH_S  # the second look: a living reaper has renewed it by then
# A VM of a large fleet beats and looks more seldom, so that its looks stay few beside the beats.
LOOKS = 20  # beats between two looks: each minute at 3 s

UNKNOWN = "unknown"


class Pacing:
    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        pace: Cell[Pace],
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._pace = pace
        self._cluster = cluster
        self._clock = clock
        self._renewed: Optional[str] = None  # None = not looked yet
        self._changed = 0.0
        self._moves = False  # it has changed before our eyes, and not stood still since

    def reconcile(self) -> Settled:
        if self._settings.get() is None or self._credentials.get() is None:
            return Settled("waiting for identity", CALM_S, waiting=True)
        try:
            found = self._cluster.within(NAMESPACE).get(Kind.LEASE, fleet.NAME, deadline=CALL_S)
        except Forbidden as e:  # granted by manifests that are older than this agent
            if self._pace.get().reaper != UNKNOWN:
                log.info("Cannot know whether a reaper watches: %s. %s", e.message, e.remedy)
            self._set(Pace(reaper=UNKNOWN))
            return Settled("not allowed to look", LOOKS * INTERVAL_S)
        now, renewed = self._clock.now(), lease.renewed_of(found or {})
        if renewed != self._renewed:
            self._moves = bool(self._renewed)
            self._renewed, self._changed = renewed, now
        gone = not renewed or now - self._changed >= fleet.STALE_S
        self._moves = self._moves and not gone
        seen = "none" if gone else "watching" if self._moves else ""
        # Also that of a reaper which is gone: a large fleet must not go back to 3 s for its sake.
        self._set(Pace(fleet.obeyed(found), seen))
        slow = LOOKS * self._pace.get().interval
        return Settled("looked", slow if gone or self._moves else SOON_S)

    def _set(self, pace: Pace) -> None:
        old = self._pace.get()
        if pace.interval != old.interval:
            log.info("Beating every %g s", pace.interval)
        self._pace.set(pace)
