"""What is remembered of each check, and when it is looked at next."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field, replace
from typing import Optional

from vmoor.model.health import CheckState, Health, Probe
from vmoor.model.service import Check
from vmoor.runtime.pool import Ticket

NEVER = float("inf")


@dataclass(eq=False)
class Track:
    """What is remembered of one check of one service."""

    service: str
    check: Check
    due: float
    made: float  # since when there is this check
    state: CheckState = field(default_factory=CheckState)
    looked: bool = False
    running: Optional[Ticket] = None  # the look that was submitted and has not ended
    void: bool = False  # that look began in a former life of the service, and says nothing
    began: float = 0.0  # when it was last known not to have begun
    stale: float = 0.0  # from when on a look without news is told as well, for its words
    gone: bool = False  # of a service or check that is no more
    told: object = None  # what was told of its unit or process at the last look
    life: str = ""  # InvocationID in which the unit was healthy
    pid: int = 0  # with which the process was healthy
    deaf_since: Optional[float] = None  # since when it runs without listening

    @property
    def healthy(self) -> bool:
        return self.state.health is Health.HEALTHY

    def saw(self, probe: Probe) -> None:
        self.state = self.state.after(probe, self.check)

    def waits(self, reason: str, words: str) -> None:
        """Nothing is known yet, and this is why."""
        self.state = replace(self.state, reason=reason, words=words)

    def forget(self, words: str) -> None:
        """What was seen holds no more."""
        self.state = CheckState(words=words, critical=self.state.critical)

    def is_no_news(self, probe: Probe) -> bool:
        """From the probe's thread: a good look at a healthy service changes no verdict."""
        return probe.passed and self.healthy and not self.state.streak


class Schedule:
    """Who is due when. A track that was put off is in the heap twice, and counts once."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Track]] = []
        self._order = itertools.count()

    def clear(self) -> None:
        self._heap = []

    def add(self, track: Track) -> None:
        if not track.gone and track.due < NEVER:
            heapq.heappush(self._heap, (track.due, next(self._order), track))

    def next_due(self) -> float:
        while self._heap:
            due, _, track = self._heap[0]
            if due == track.due and not track.gone:
                return due
            heapq.heappop(self._heap)  # it was put off
        return NEVER

    def take(self, now: float) -> Optional[Track]:
        """One that is due, if there is one."""
        if self.next_due() > now:
            return None
        return heapq.heappop(self._heap)[2]
