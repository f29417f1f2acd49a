"""How long to wait after the n-th failure in a row."""

from __future__ import annotations

from typing import NamedTuple

FIRST_S = 1.0
# Half a minute: a fleet of 1 000 VMs knocks 33 times a second on a Vault that comes back, and
# nobody waits longer than that for a cause that is gone.
LONGEST_S = 30.0
JITTER = 0.2


class Backoff(NamedTuple):
    """Doubles from FIRST_S to `longest`. `random` is from 0 to 1; the caller draws it."""

    failures: int = 0

    def failed(self) -> Backoff:
        return Backoff(self.failures + 1)

    def delay(self, random: float, longest: float = LONGEST_S) -> float:
        exponent = min(max(self.failures - 1, 0), 16)
        plain = min(FIRST_S * 2.0**exponent, longest)
        return plain * (1 + JITTER * (2 * random - 1))
