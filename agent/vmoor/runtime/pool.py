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


@dataclass(eq=False)
class Ticket:
    """Of a call that was submitted. `given_up`: nobody waits for its thread any more."""

    begun: bool = False
    given_up: bool = False


class Results(Generic[K, R]):
    """What has ended: put by any thread, taken by one, which `ring` wakes."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._done: queue.SimpleQueue[Done[K, R]] = queue.SimpleQueue()

    def put(self, done: Done[K, R], *, quiet: bool) -> None:
        """One that is `quiet` does not ring: it is taken with whatever comes next."""
        self._done.put(done)
        if not quiet:
            self._ring()

    def take(self) -> Sequence[Done[K, R]]:
        """Since the last time; never waits."""
        taken: list[Done[K, R]] = []
        while not self._done.empty():  # only one thread takes: not empty stays so
            taken.append(self._done.get())
        return taken


class Pool(Generic[K, R]):
    """At most `size` daemon threads, made when first needed; those that were given up not counted.

    Only one thread submits, takes and gives up; `ring` wakes it when there is something to take.
    """

    def __init__(self, size: int, ring: Callable[[], None], name: str) -> None:
        self._size = size
        self._results: Results[K, R] = Results(ring)
        self._name = name
        self._open = 0  # submitted and not taken yet: as many threads can be of use
        self._threads = 0
        self._made = 0
        self._work: queue.SimpleQueue[tuple[K, Callable[[], R], Callable[[R], bool], Ticket]] = (
            queue.SimpleQueue()
        )

    def submit(self, key: K, call: Callable[[], R], *, quiet: Callable[[R], bool]) -> Ticket:
        """A result for which `quiet` is true does not ring."""
        ticket = Ticket()
        self._open += 1
        self._hire()
        self._work.put((key, call, quiet, ticket))
        return ticket

    def give_up(self, ticket: Ticket) -> None:
        """Its call hangs: another thread takes the place of its own, which ends if it ever can."""
        if not ticket.given_up:
            ticket.given_up = True
            self._threads -= 1
            self._hire()

    def _hire(self) -> None:
        if self._threads < min(self._open, self._size):
            self._threads += 1
            self._made += 1
            name = f"{self._name}-{self._made}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def take(self) -> Sequence[Done[K, R]]:
        """What has ended since the last time; never waits."""
        taken = self._results.take()
        self._open -= len(taken)
        return taken

    def _run(self) -> None:
        ticket = Ticket()
        while not ticket.given_up:
            key, call, quiet, ticket = self._work.get()
            ticket.begun = True
            still = False
            try:
                result = call()
                done: Done[K, R] = Done(key, result)
                still = quiet(result)
            except Exception as e:  # noqa: BLE001 - raised by whoever takes it
                done = Done(key, None, e)
            self._results.put(done, quiet=still)
