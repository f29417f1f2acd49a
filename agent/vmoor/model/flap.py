"""Hold-down: who falls again and again stays out until it has passed for a while.

Going out is never delayed. Times are Clock.now() seconds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Optional

from vmoor.model.health import Health, Verdict

WINDOW_S = 600.0  # falls within it count
FREE = 2  # falls that cost nothing: a deployment, and the one that mends it
LONGEST_S = 60.0
REMEMBERED = 50
REASON, PROXY = "Flapping", "ProxyNotReady"


class Flap(NamedTuple):
    """What is remembered of one service."""

    falls: tuple[float, ...] = ()
    good_since: Optional[float] = None

    def recent(self, now: float) -> bool:
        return any(now - fall < WINDOW_S for fall in self.falls)

    def hold(self) -> float:
        """For how long it must have passed to come back: 0, then 1, 2, 4 ... LONGEST_S."""
        costly = len(self.falls) - FREE
        return min(LONGEST_S, 2.0 ** (costly - 1)) if costly > 0 else 0.0


def vanished(flap: Flap, now: float, *, was_in: bool) -> Flap:
    """Its source took it away. If it was in the mesh and comes back, that was a fall."""
    return Flap((*flap.falls, now)[-REMEMBERED:] if was_in else flap.falls)


def damped(
    flap: Flap, judged: Verdict, old: Optional[Verdict], now: float
) -> tuple[Flap, Verdict, float]:
    """The new memory, the verdict that counts, and how long it will still be held (0 = not).

    While it flaps the reason is the same whether it passes or fails, so that nothing is written.
    """
    was_in = old is not None and old.health is Health.HEALTHY
    recent = tuple(fall for fall in flap.falls if now - fall < WINDOW_S)
    fell = was_in and judged.health is Health.UNHEALTHY
    if fell and judged.reason != PROXY:  # its own restarts are no fault of the service
        recent = (*recent, now)[-REMEMBERED:]
    good = judged.health is Health.HEALTHY
    since = flap.good_since if flap.good_since is not None else now
    flap = Flap(recent, since if good else None)
    hold = flap.hold()
    if not hold or judged.health is Health.UNKNOWN or (good and was_in):
        return flap, judged, 0.0
    often = f"fell {len(recent)} times in {WINDOW_S / 60:.0f}m"
    if not good:
        return flap, replace(judged, reason=REASON, words=f"{judged.words}; {often}"), 0.0
    left = hold - (now - since)
    if left <= 0:
        return flap, judged, 0.0
    words = f"passes again, but {often}: back after {hold:g}s without a failure"
    out_since = old.since if old is not None and old.health is Health.UNHEALTHY else now
    return flap, Verdict(Health.UNHEALTHY, REASON, words, out_since), left
