"""Takes this VM out of the mesh, in order and in bounded time. Called once, all loops stopped.

Out first (Healthy=False), then seen by our own Envoy, then drained, then the entries, then the
Lease: an interruption anywhere leaves something that the lease's end cleans up, never an endpoint
that is served by nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.controllers.leaving.entries import Entries
from vmoor.controllers.leaving.traffic import Traffic
from vmoor.model import entry, sight
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.model.sight import Sight
from vmoor.ports import Clock, Cluster, Envoy, Files
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

MARK = "/run/vmoor/leaving"  # there while Envoy may be draining: it never ends that by itself
AWAY_S = 4.0  # of the whole time: kept for the entries and the Lease


class Leaving:
    """`pause` waits that many seconds; `tell` is the unit's STATUS=."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        lock: Cell[Lock],
        beat: Cell[Beat],
        sights: Cell[Mapping[str, Sight]],
        machine: Machine,
        cluster: Cluster,
        envoy: Envoy,
        files: Files,
        clock: Clock,
        pause: Callable[[float], object],
        tell: Callable[[str], object],
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._sights = sights
        self._machine = machine
        self._files = files
        self._clock = clock
        self._tell = tell
        self._entries = Entries(
            lock=lock, beat=beat, machine=machine, cluster=cluster, clock=clock, pause=pause
        )
        self._traffic = Traffic(envoy=envoy, clock=clock, pause=pause, tell=tell)

    def leave(self, seconds: float) -> Sequence[str]:
        """What could not be removed within `seconds`, a sentence each."""
        settings = self._settings.get()
        if settings is None:
            return ()
        lock, workload = self._lock.get(), settings.workload
        if not lock.held:
            return (
                f"all that this VM registered is left: {lock.words}; delete it: kubectl -n "
                f"{workload.namespace} delete workloadentries,leases "
                f"-l vmoor.io/vm={self._machine.name}",
            )
        began = self._clock.now()
        ends = began + seconds
        self._tell("Leaving the mesh")
        things = self._entries.find(Owner(self._machine.name, workload.service_account), ends)
        self._entries.out()
        if things:
            self._drain(things, settings.drain_timeout, ends - AWAY_S, began)
        self._entries.delete(keep=settings.leave.keep_entries)
        return tuple(self._entries.left)

    def _drain(
        self, things: Sequence[Object], timeout: float, latest: float, began: float
    ) -> None:
        inside = [thing for thing in things if entry.health_status(thing) == "True"]
        if inside:
            self._traffic.until_forgotten(self._listed(inside), latest)
        out = self._clock.now()
        self._files.write(MARK, b"", 0o600)
        open_ = self._traffic.drain(min(out + timeout, latest))
        now = self._clock.now()
        log.info("Out of the mesh after %.2f s, drained in %.2f s", out - began, now - out)
        if open_:
            log.warning("Requests still open after %.0f s of draining: %d", now - out, open_)

    def _listed(self, things: Sequence[Object]) -> Collection[str]:
        """Those of their endpoints that our own Envoy has listed until now."""
        seen = self._sights.get()
        return {
            endpoint
            for thing in things
            if seen.get(entry.service(thing), Sight()).listed
            for endpoint in _endpoints(thing)
        }


def unfinished(files: Files) -> bool:
    """Whether a leave of this boot was interrupted when the proxy may have been draining."""
    return files.read(MARK) is not None


def _endpoints(thing: Object) -> Sequence[str]:
    address, ports = entry.address(thing), thing["spec"].get("ports") or {}
    return [sight.endpoint(address, port) for port in ports.values()]
