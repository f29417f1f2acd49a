"""One fact with one writer. Threads share nothing else."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

from vmoor.runtime.bell import Bell

T = TypeVar("T")


class Cell(Generic[T]):
    """Holds an immutable value; a change rings the bells of its readers.

    Exactly one controller calls `set`. Setting an equal value rings nobody and changes nothing,
    so that readers may compare by identity; `refresh` takes it for what its comparison leaves out.
    """

    def __init__(self, value: T) -> None:
        self._value = value
        self._lock = threading.Lock()
        self._bells: list[Bell] = []

    def rings(self, *bells: Bell) -> None:
        """Ring these bells on each change."""
        self._bells.extend(bells)

    def get(self) -> T:
        return self._value

    def refresh(self, value: T) -> None:
        """As `set`, but an equal value replaces the old one, silently."""
        if value == self._value:
            self._value = value
        else:
            self.set(value)

    def set(self, value: T) -> None:
        with self._lock:
            if value == self._value:
                return
            self._value = value
        for bell in self._bells:
            bell.ring()
