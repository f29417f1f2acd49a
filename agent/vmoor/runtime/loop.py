"""A controller's loop, and the one table that says what follows from an error.

`Loop.turn` never raises: it turns the outcome of `reconcile` into an `Outcome` (the condition
that people see) and the seconds until the next pass. Tests call `turn`, threads call `run`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Optional

from vmoor import errors
from vmoor.ports import Clock
from vmoor.runtime.backoff import LONGEST_S, Backoff
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

# Event.wait does not count the time of a suspended machine: a resumed VM looks within this time.
LONGEST_NAP_S = 30.0
REPEAT_S = 3600.0  # a refusal that stands is told again once an hour
CONFIG_LOOK_S = 1.0  # a stat of the files; whoever mends one watches what happens
PATIENCE_S = 60.0  # for one pass; the longest has three calls of 10 to 20 s
BUG_LIMIT = 10  # bugs in a row until the process ends and systemd starts a clean one


@dataclass(frozen=True)
class Settled:
    """A pass that went well: what is so now, and when to look again at the latest (seconds).

    `waiting` marks a pass that could do nothing yet because another step has to come first,
    `wrong` one that did its work and found what a person has to mend: its step fails, but it is
    not tried again for that.
    """

    words: str
    again: float
    waiting: bool = False
    wrong: bool = False
    remedy: str = ""


class Outcome(NamedTuple):
    """What the last pass of a loop came to. `since` and `next_try` are Clock.now() seconds."""

    state: str  # "ok" | "wait" | "fail"
    words: str
    remedy: str = ""
    since: float = 0.0
    next_try: float = 0.0
    security: bool = False


WAITING = Outcome("wait", "not started")


class Loop:
    """Runs `reconcile` whenever the bell rings or the time has come.

    `refused` is told about an Unauthenticated error, so that identity drops that credential, and
    `distrusted` is called on an Untrusted one, so that it looks for a newer CA.
    A `detached` loop's pass may block for minutes (a watch, a command) and changes nothing but our
    own notes: it is never called stuck, and nobody waits for its end. `longest` bounds the
    back-off, in seconds.
    """

    def __init__(  # noqa: PLR0913 - the parts of a loop, each named
        self,
        name: str,
        reconcile: Callable[[], Settled],
        bell: Bell,
        clock: Clock,
        *,
        detached: bool = False,
        longest: Callable[[], float] = lambda: LONGEST_S,
        refused: Optional[Callable[[errors.Unauthenticated], None]] = None,
        distrusted: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.bell = bell
        self.outcome: Cell[Outcome] = Cell(WAITING)
        self.recoveries = Cell(0)  # good passes after a bad one
        self.bugs = 0
        self._reconcile = reconcile
        self._clock = clock
        self.detached = detached
        self._longest = longest
        self._refused = refused
        self._distrusted = distrusted
        self._backoff = Backoff()
        self._told = -REPEAT_S
        self._busy_since: Optional[float] = None
        self._stop = threading.Event()

    def stuck(self) -> bool:
        """True when the pass that runs now has run longer than its patience."""
        since = self._busy_since
        return not self.detached and since is not None and self._clock.now() - since > PATIENCE_S

    def stop(self) -> None:
        self._stop.set()
        self.bell.ring()

    def run(self) -> None:
        while not self._stop.is_set():
            self.bell.clear()
            again = self.turn()
            deadline = self._clock.now() + again
            while not self._stop.is_set():
                left = deadline - self._clock.now()
                if left <= 0 or self.bell.wait(min(left, LONGEST_NAP_S)):
                    break

    def turn(self) -> float:
        """One pass; returns the seconds until the next."""
        self._busy_since = self._clock.now()
        try:
            settled = self._reconcile()
        except errors.VmoorError as e:
            return self._failed(e)
        except Exception as e:  # noqa: BLE001 - the one place where a bug is caught and counted
            return self._broke(e)
        finally:
            self._busy_since = None
        self._settled(settled)
        return settled.again

    def _settled(self, settled: Settled) -> None:
        if self._backoff.failures:
            fields = {"VMOOR_EVENT": "step.recovered", "VMOOR_STEP": self.name}
            failures = self._backoff.failures
            log.info("%s: recovered after %d failures", self.name, failures, extra=fields)
            self.recoveries.set(self.recoveries.get() + 1)
        self._backoff = Backoff()
        self.bugs = 0
        if settled.wrong:
            self._tell(logging.WARNING, settled.words, settled.remedy)
            self._post("fail", settled.words, settled.remedy, 0.0)
            return
        self._told = -REPEAT_S
        self._post("wait" if settled.waiting else "ok", settled.words, "", 0.0)

    def _failed(self, error: errors.VmoorError) -> float:
        self._backoff = self._backoff.failed()
        delay = self._delay()
        if isinstance(error, errors.Unauthenticated) and self._refused is not None:
            self._refused(error)
        if isinstance(error, errors.Untrusted):
            self._distrusted()
        if isinstance(error, errors.Conflict) and self._backoff.failures == 1:
            return 0.0
        if isinstance(error, errors.Unavailable) and error.retry_after is not None:
            delay = max(delay, min(error.retry_after, 300.0))
        if isinstance(error, errors.Misconfigured):
            delay = CONFIG_LOOK_S
        security = isinstance(error, errors.Rejected) and error.security
        level = logging.CRITICAL if security else logging.WARNING
        self._tell(level, error.message, error.remedy, f", next try in {delay:.0f} s")
        self._post("fail", error.message, error.remedy, delay, security=security)
        return delay

    def _broke(self, error: Exception) -> float:
        self._backoff = self._backoff.failed()
        self.bugs += 1
        delay = self._delay()
        log.error(
            "%s: this is a bug in vmoor, next try in %.0f s", self.name, delay, exc_info=error
        )
        self._post("fail", f"a bug in vmoor: {type(error).__name__}", "see the journal", delay)
        return delay

    def _delay(self) -> float:
        return self._backoff.delay(random.random(), self._longest())  # noqa: S311 - jitter, not a secret

    def _tell(self, level: int, words: str, remedy: str, then: str = "") -> None:
        now = self._clock.now()
        if self.outcome.get().words == words and now - self._told < REPEAT_S:
            return
        self._told = now
        remedy = f" Remedy: {remedy}" if remedy else ""
        text = words[:1].upper() + words[1:]
        event = "security" if level == logging.CRITICAL else "step.failed"
        fields = {"VMOOR_EVENT": event, "VMOOR_STEP": self.name}
        log.log(level, "%s: %s%s.%s", self.name, text, then, remedy, extra=fields)

    def _post(
        self, state: str, words: str, remedy: str, delay: float, *, security: bool = False
    ) -> None:
        now = self._clock.now()
        old = self.outcome.get()
        # A failing command may say something else each time; it fails since the first.
        same = old.state == state and (state != "wait" or old.words == words)
        since = old.since if same else now
        next_try = now + delay if delay else 0.0
        self.outcome.set(Outcome(state, words, remedy, since, next_try, security))
