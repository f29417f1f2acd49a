"""What is made, and its module loaded, only once somebody wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from vmoor.runtime.loop import Settled

CALM_S = 300.0


class Lazy:
    """A loop's work; `make` makes its real work, at the first pass at which it is `wanted`."""

    def __init__(self, wanted: Callable[[], bool], make: Callable[[], Callable[[], Settled]]):
        self._wanted = wanted
        self._make = make
        self._reconcile: Optional[Callable[[], Settled]] = None

    def reconcile(self) -> Settled:
        if self._reconcile is None:
            if not self._wanted():
                return Settled("not configured", CALM_S, waiting=True)
            self._reconcile = self._make()
        return self._reconcile()
