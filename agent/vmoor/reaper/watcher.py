"""Keeps what the cluster says of one kind, in all namespaces: one list, then one watch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Callable, Generic, Optional, TypeVar

from vmoor.errors import Conflict, VmoorError
from vmoor.model import entry
from vmoor.model.entry import SELECTOR, Object
from vmoor.ports import Change, Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

T = TypeVar("T")

PAGE_S = 20.0  # one page of the list
FLOOR_S = 0.1  # between two watches; a server that ends each at once is not asked in a busy loop
# The leader renews its Lease every 2 s, and each renewal comes through the watch of the Leases:
# a longer silence is ours.
GAP_S = 5.0
RECENT = 200  # changes until all is copied once

Key = tuple[str, str]  # namespace, name


@dataclass(frozen=True, eq=False)
class Sight(Generic[T]):
    """`t0`: when the watch began or came back from a gap. `heard`: its last word.

    Two of them are never equal: comparing 10 000 VMs at each beat would be work for nothing, and
    so would be copying them: `recent` are the changes since `base`, None = gone.
    """

    base: Mapping[Key, T] = field(default_factory=dict)
    recent: Mapping[Key, Optional[T]] = field(default_factory=dict)
    live: bool = False
    t0: float = 0.0
    heard: float = 0.0

    @property
    def things(self) -> Mapping[Key, T]:
        all_ = {**self.base, **self.recent}
        return {key: value for key, value in all_.items() if value is not None}

    def find(self, key: Key) -> Optional[T]:
        return self.recent[key] if key in self.recent else self.base.get(key)

    def changed(self, key: Key, value: Optional[T]) -> Sight[T]:
        after = replace(self, recent={**self.recent, key: value})
        if len(after.recent) <= RECENT:
            return after
        return replace(after, base=after.things, recent={})

    def heard_at(self, now: float) -> Sight[T]:
        t0 = now if now - self.heard > GAP_S else self.t0
        return replace(self, t0=t0, heard=now)

    def silent(self, now: float) -> bool:
        return not self.live or now - self.heard > GAP_S


class Watcher(Generic[T]):
    """A pass lasts as long as a watch, up to ten minutes: its loop needs that patience.

    `read` makes the value of an object, None = none of ours, from the one before.
    """

    def __init__(
        self,
        kind: Kind,
        read: Callable[[Object, float, Optional[T]], Optional[T]],
        sight: Cell[Sight[T]],
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._kind = kind
        self._read = read
        self._sight = sight
        self._cluster = cluster.within("")
        self._clock = clock
        self._version = ""  # where the next watch goes on; "" = list first

    def reconcile(self) -> Settled:
        if not self._version:
            self._list()
        try:
            for change in self._cluster.watch(self._kind, SELECTOR, self._version):
                self._take(change)
        except VmoorError as e:
            # What was missed is not known: the list says what is so now.
            self._version = ""
            self._sight.set(replace(self._sight.get(), live=False))
            if isinstance(e, Conflict):
                return Settled("listing anew", FLOOR_S)
            raise
        return Settled("watching", FLOOR_S)

    def _list(self) -> None:
        things, version = self._cluster.list(self._kind, SELECTOR, deadline=PAGE_S)
        old, now = self._sight.get(), self._clock.now()
        found: dict[Key, T] = {}
        for thing in things:
            value = self._read(thing, now, old.find(_key(thing)))
            if value is not None:
                found[_key(thing)] = value
        self._sight.set(replace(old.heard_at(now), base=found, recent={}, live=True))
        self._version = version

    def _take(self, change: Change) -> None:
        now = self._clock.now()
        sight = self._sight.get().heard_at(now)
        self._version = entry.version(change.object)
        if change.type != "BOOKMARK":
            key, value = _key(change.object), None
            if change.type != "DELETED":
                value = self._read(change.object, now, sight.find(key))
            sight = sight.changed(key, value)
        self._sight.set(sight)


def _key(thing: Object) -> Key:
    return str(entry.metadata(thing).get("namespace", "")), entry.name(thing)
