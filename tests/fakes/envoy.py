"""Our own Envoy: what it lists, and how often it is asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Optional

from vmoor.model.sight import Clusters


class FakeEnvoy:
    """`looks`: how often it still lists everything that it is asked for, None = no answer.

    `open`: how many requests it says are open, one after the other, the last for ever.
    """

    def __init__(self, looks: Optional[int] = 0, open: Sequence[int] = (0,)) -> None:
        self.looks = looks
        self.open = list(open)
        self.drained = False
        self.asked: list[str] = []
        self.inbound: frozenset[int] = frozenset()
        self.hidden: frozenset[str] = frozenset()  # no ServiceEntry has these

    def clusters(self, endpoints: Collection[str], *, deadline: float) -> Optional[Clusters]:
        self.asked += sorted(endpoints)
        if self.looks is None:
            return None
        self.looks -= 1
        return Clusters(
            frozenset(endpoints) - self.hidden if self.looks >= 0 else frozenset(), self.inbound
        )

    def drain(self, *, deadline: float) -> bool:
        self.drained = self.looks is not None
        return self.drained

    def requests(
        self, ports: Optional[Collection[int]] = None, *, deadline: float
    ) -> Optional[int]:
        return None if self.looks is None else self.open.pop(0) if self.open[1:] else self.open[0]
