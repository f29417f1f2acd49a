"""Watches what the cloud says of this VM's end, and lets the drain know.

Level by level: what the metadata says now is so. A notice that is taken back is over, and after a
restart of ours it is read anew. Metadata that do not answer change nothing.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

from vmoor.config.settings import Leave, Settings
from vmoor.errors import VmoorError
from vmoor.model import notice
from vmoor.model.notice import Notice
from vmoor.ports import Clock, Metadata
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALM_S = 300.0
UNHEARD_S = 10.0  # and a look: so long a VM whose metadata do not answer waits before it moors


class Notices:
    """A pass lasts as long as a long poll, up to 70 s: its loop needs that patience.

    `told` is the cloud that cloud-init names, `connect` makes the port for a cloud and a URL, and
    `hear` takes what the cloud wants now, None = nothing.
    """

    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        told: Callable[[], str],
        connect: Callable[[str, str], Metadata],
        hear: Callable[[Optional[Notice]], object],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._told = told
        self._connect = connect
        self._hear = hear
        self._clock = clock
        self._leave, self._cloud = Leave(), ""
        self._metadata: Optional[Metadata] = None
        self._heard: Optional[Notice] = None
        self._known = False
        self._began = clock.now()

    def reconcile(self) -> Settled:
        try:
            metadata = self._turned()
            found = metadata.look() if metadata else None
        except VmoorError:
            if not self._known and self._clock.now() >= self._began + UNHEARD_S:
                self._say(None)
            raise
        self._say(found)
        if metadata is None:
            return Settled("cloud-init names no cloud that gives notice", CALM_S, waiting=True)
        words = f"{found.who}: {found.words}" if found else f"none of {self._cloud}"
        return Settled(words, metadata.period)

    def _turned(self) -> Optional[Metadata]:
        """To the metadata that are configured now."""
        settings = self._settings.get()
        leave = settings.leave if settings else Leave()
        if self._metadata is not None and leave == self._leave:
            return self._metadata
        cloud = notice.cloud_of(leave.notices, self._told)
        if self._metadata is not None:
            self._metadata.close()
        self._metadata = self._connect(cloud, leave.metadata) if cloud else None
        self._leave, self._cloud = leave, cloud
        return self._metadata

    def _say(self, found: Optional[Notice]) -> None:
        if found != self._heard:
            if found:
                log.warning("The cloud takes this VM out: %s: %s", found.who, found.words)
            else:
                log.info("The cloud wants this VM out no more")
            self._heard = found
        self._known = True
        self._hear(found)
