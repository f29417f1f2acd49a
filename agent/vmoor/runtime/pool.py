"""A few threads for calls that block, each of which ends in time by itself."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Optional, TypeVar

K = TypeVar("K")
R = TypeVar("R")


@dataclass(frozen=True)
class Done(Generic[K, R]):
    """`error` is a bug of the call: whoever takes it raises it."""

    key: K
    result: Optional[R]
    error: Optional[Exception] = None


class Pool(Generic[K, R]):
    """At most `size` daemon threads, made when first needed.

    Only one thread submits and takes; `ring` wakes it when there is something to take.
    """

    def __init__(self, size: int, ring: Callable[[], None], name: str) -> None:
        self._size = size
        self._ring = ring
        self._name = name
        self._open = 0  # submitted and not taken yet: as many threads can be of use
        self._threads = 0
        self._work: queue.SimpleQueue[tuple[K, Callable[[], R], Callable[[R], bool]]] = (
            queue.SimpleQueue()
        )
        self._done: queue.SimpleQueue[Done[K, R]] = queue.SimpleQueue()

    def submit(self, key: K, call: Callable[[], R], *, quiet: Callable[[R], bool]) -> None:
        """A result that is `quiet` does not ring: it is taken with whatever comes next."""
        self._open += 1
        if self._threads < min(self._open, self._size):
            self._threads += 1
            name = f"{self._name}-{self._threads}"
            threading.Thread(target=self._run, name=name, daemon=True).start()
        self._work.put((key, call, quiet))

    def take(self) -> Sequence[Done[K, R]]:
        """What has ended since the last time; never waits."""
        taken: list[Done[K, R]] = []
        while not self._done.empty():  # only this thread takes: not empty stays so
            taken.append(self._done.get())
        self._open -= len(taken)
        return taken

    def _run(self) -> None:
        while True:
            key, call, quiet = self._work.get()
            still = False
            try:
                result = call()
                done: Done[K, R] = Done(key, result)
                still = quiet(result)
            except Exception as e:  # noqa: BLE001 - raised by whoever takes it
                done = Done(key, None, e)
            self._done.put(done)
            if not still:
                self._ring()
