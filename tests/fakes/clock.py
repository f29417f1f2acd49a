"""A clock that a test moves."""

from __future__ import annotations


class FakeClock:
    def __init__(self, now: float = 1000.0, offset: float = 1_800_000_000.0) -> None:
        self._now = now
        self.offset = offset  # wall - now; a test that sets the VM's clock changes it

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self.offset

    def advance(self, seconds: float) -> None:
        self._now += seconds
