"""Takes this VM out of the mesh, in order and in bounded time. Called once, all loops stopped.

Out first (Healthy=False), then seen by our own Envoy, then the entries, then the Lease: an
interruption anywhere leaves something that the lease's end cleans up, never an endpoint that is
served by nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Conflict, Unavailable, VmoorError
from vmoor.model import entry, lease, registration, sight
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.ports import Clock, Cluster, Envoy, Kind
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

SEEN_S = 0.5  # istiod gathers changes for 0.1 s before it pushes
LOOK_S = 0.02
ASK_S = 0.3  # Envoy's answer; it may be busy or gone already
CALL_S = 2.0
TRIES = 4
RETRY_S = 0.2


class Leaving:
    """`pause` waits that many seconds."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        lock: Cell[Lock],
        beat: Cell[Beat],
        machine: Machine,
        cluster: Cluster,
        envoy: Envoy,
        clock: Clock,
        pause: Callable[[float], object],
    ) -> None:
        self._settings = settings
        self._lock = lock
        self._beat = beat
        self._machine = machine
        self._cluster = cluster
        self._envoy = envoy
        self._clock = clock
        self._pause = pause
        self._ends = 0.0
        self._left: list[str] = []
        self._things: dict[str, Object] = {}

    def leave(self, seconds: float) -> Sequence[str]:
        """What could not be removed within `seconds`, a sentence each."""
        settings = self._settings.get()
        self._ends, self._left = self._clock.now() + seconds, []
        if settings is None:
            return ()
        lock = self._lock.get()
        if not lock.held:
            return (
                f"all that this VM registered is left: {lock.words}; delete it: kubectl -n "
                f"{settings.workload.namespace} delete workloadentries,leases "
                f"-l vmoor.io/vm={self._machine.name}",
            )
        owner = Owner(self._machine.name, settings.workload.service_account)
        self._things = {}
        self._done("all entries are left", partial(self._list, owner))
        names = tuple(self._things)
        endpoints = {endpoint for name in names for endpoint in _endpoints(self._things[name])}
        for name in names:
            self._done(f"entry {name} is in the mesh", partial(self._out, name, owner))
        self._until_seen(endpoints)
        for name in names:
            self._done(f"entry {name} is left", partial(self._delete, name, owner))
        if not self._left:
            self._done("the lease is left", self._release)
        return tuple(self._left)

    def _done(self, left: str, act: Callable[[], None]) -> None:
        """Against somebody's write in between, or a server that is just gone, it tries again."""
        for tries in range(TRIES, 0, -1):
            try:
                act()
                return
            except (Conflict, Unavailable) as e:
                error: VmoorError = e
                if tries > 1 and self._clock.now() + RETRY_S < self._ends:
                    self._pause(RETRY_S)
                    continue
            except VmoorError as e:
                error = e
            break
        log.warning("Cannot leave cleanly: %s: %s", left, error.message)
        self._left.append(f"{left}: {error.message}")

    def _list(self, owner: Owner) -> None:
        things, _ = self._cluster.list(Kind.ENTRY, owner.selector, deadline=self._deadline())
        self._things = {entry.name(thing): thing for thing in things if owner.owns(thing)}

    def _take(self, name: str, owner: Owner) -> Optional[Object]:
        """The entry as last seen, if it is ours. Used once: after a failed write it is read."""
        self._check()
        if name in self._things:
            return self._things.pop(name)
        have = self._cluster.get(Kind.ENTRY, name, deadline=self._deadline())
        return have if have is not None and owner.owns(have) else None

    def _out(self, name: str, owner: Owner) -> None:
        have = self._take(name, owner)
        if have is not None and entry.health_status(have) == "True":
            word = registration.Word(healthy=False, reason="Leaving", message="the VM leaves")
            body = registration.says(have, word, self._clock.wall())
            have = self._cluster.apply(
                Kind.ENTRY, body, force=True, status=True, deadline=self._deadline()
            )
        if have is not None:
            self._things[name] = have

    def _until_seen(self, endpoints: Iterable[str]) -> None:
        """Until our own Envoy has forgotten us: the others got the same push."""
        limit = min(self._clock.now() + SEEN_S, self._ends)
        for endpoint in endpoints:
            while self._knows(endpoint) and self._clock.now() < limit:
                self._pause(LOOK_S)

    def _knows(self, endpoint: str) -> bool:
        clusters = self._envoy.clusters((endpoint,), deadline=ASK_S)
        return clusters is not None and endpoint in clusters.outbound

    def _delete(self, name: str, owner: Owner) -> None:
        have = self._take(name, owner)
        if have is not None:
            self._remove(Kind.ENTRY, have)

    def _release(self) -> None:
        """Nobody's rather than left, so that the next of this name need not wait."""
        name = lease.lease_name(self._machine.name)
        have = self._cluster.get(Kind.LEASE, name, deadline=self._deadline())
        if have is None or not lease.held_by(have, self._machine):
            return
        try:
            self._remove(Kind.LEASE, have)
        except Conflict:
            raise
        except VmoorError:
            self._cluster.replace(Kind.LEASE, lease.released(have), deadline=self._deadline())

    def _remove(self, kind: Kind, thing: Object) -> None:
        self._cluster.delete(
            kind,
            entry.name(thing),
            uid=entry.uid(thing),
            resource_version=entry.version(thing),
            deadline=self._deadline(),
        )

    def _check(self) -> None:
        if not lease.may_write(self._lock.get(), self._beat.get(), self._clock.now()):
            raise Unavailable("cannot write entries: the lease has lapsed")

    def _deadline(self) -> float:
        left = self._ends - self._clock.now()
        if left <= 0:
            raise Unavailable("no time is left")
        return min(CALL_S, left)


def _endpoints(thing: Object) -> Sequence[str]:
    address, ports = entry.address(thing), thing["spec"].get("ports") or {}
    return [sight.endpoint(address, port) for port in ports.values()]
