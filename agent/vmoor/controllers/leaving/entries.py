"""The cluster's side of a leave: the VM's entries out, then away; the Lease last.

Each write is made against the version that was judged, under the lease, and only to what carries
this VM's owner mark.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Optional

from vmoor.errors import Conflict, Unavailable, VmoorError
from vmoor.model import entry, lease, registration
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

CALL_S = 2.0
TRIES = 4
RETRY_S = 0.2
WORD = registration.Word(healthy=False, reason="Leaving", message="the VM leaves")


class Entries:
    """`left` says what could not be done, a sentence each; `pause` waits that many seconds."""

    def __init__(
        self,
        *,
        lock: Cell[Lock],
        beat: Cell[Beat],
        machine: Machine,
        cluster: Cluster,
        clock: Clock,
        pause: Callable[[float], object],
    ) -> None:
        self._lock = lock
        self._beat = beat
        self._machine = machine
        self._cluster = cluster
        self._clock = clock
        self._pause = pause
        self._owner = Owner("", "")
        self._ends = 0.0
        self._names: Sequence[str] = ()
        self._things: dict[str, Object] = {}
        self.left: list[str] = []

    def find(self, owner: Owner, ends: float) -> Sequence[Object]:
        """All of this VM's, as they are now; all that follows ends at `ends`, Clock.now()."""
        self._owner, self._ends, self.left, self._things = owner, ends, [], {}
        self._done("all entries are left", self._list)
        self._names = tuple(self._things)
        return tuple(self._things.values())

    def out(self) -> None:
        for name in self._names:
            self._done(f"entry {name} is in the mesh", partial(self._out, name))

    def delete(self, *, keep: bool) -> None:
        """`keep`: the entries stay, out of the mesh, and the Lease that they belong to with them,
        held by nobody. It also stays while any of them could not be taken away.
        """
        if not keep:
            for name in self._names:
                self._done(f"entry {name} is left", partial(self._delete, name))
        if not self.left:
            self._done("the lease is left", partial(self._release, keep=keep))

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
        self.left.append(f"{left}: {error.message}")

    def _list(self) -> None:
        things, _ = self._cluster.list(Kind.ENTRY, self._owner.selector, deadline=self._deadline())
        self._things = {entry.name(thing): thing for thing in things if self._owner.owns(thing)}

    def _take(self, name: str) -> Optional[Object]:
        """The entry as last seen, if it is ours. Used once: after a failed write it is read."""
        self._check()
        if name in self._things:
            return self._things.pop(name)
        have = self._cluster.get(Kind.ENTRY, name, deadline=self._deadline())
        return have if have is not None and self._owner.owns(have) else None

    def _out(self, name: str) -> None:
        have = self._take(name)
        if have is not None and entry.health_status(have) == "True":
            body = registration.says(have, WORD, self._clock.wall())
            have = self._cluster.apply(
                Kind.ENTRY, body, force=True, status=True, deadline=self._deadline()
            )
        if have is not None:
            self._things[name] = have

    def _delete(self, name: str) -> None:
        have = self._take(name)
        if have is not None:
            self._remove(Kind.ENTRY, have)

    def _release(self, *, keep: bool) -> None:
        """Nobody's rather than left, so that the next of this name need not wait."""
        name = lease.lease_name(self._machine.name)
        have = self._cluster.get(Kind.LEASE, name, deadline=self._deadline())
        if have is None or not lease.held_by(have, self._machine):
            return
        try:
            if not keep:
                self._remove(Kind.LEASE, have)
                return
        except Conflict:
            raise
        except VmoorError as e:
            log.info("The lease is released, since it cannot be deleted: %s", e.message)
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
