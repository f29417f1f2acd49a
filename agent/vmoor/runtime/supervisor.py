"""Runs every loop in a thread of its own and tells systemd whether all of them move.

A thread that died, a pass that outlives its patience, or bugs in a row end the process: systemd
starts a clean one, and nothing in the mesh depends on this process being the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from vmoor.ports import Clock
from vmoor.runtime.bell import Bell
from vmoor.runtime.loop import BUG_LIMIT, Loop


class Pump(NamedTuple):
    """A thread that only reads a blocking source and rings bells: D-Bus, a watch.

    `run` takes the event that asks it to end.
    """

    name: str
    run: Callable[[threading.Event], None]


class Supervisor:
    """The main thread's part: start, tick, stop."""

    def __init__(self, clock: Clock, feed: Callable[[], None]) -> None:
        self.bell = Bell()
        self._clock = clock
        self._feed = feed
        self._ending = threading.Event()
        self._loops: list[Loop] = []
        self._threads: list[threading.Thread] = []
        self._awaited: list[threading.Thread] = []

    def start(self, loops: Sequence[Loop], pumps: Sequence[Pump] = ()) -> None:
        for pump in pumps:
            self._spawn(pump.name, pump.run, self._ending)
        for loop in loops:
            thread = self._spawn(loop.name, loop.run)
            if not loop.detached:
                self._awaited.append(thread)
        self._loops.extend(loops)

    def _spawn(
        self, name: str, run: Callable[..., None], *args: threading.Event
    ) -> threading.Thread:
        thread = threading.Thread(target=run, args=args, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def sick(self) -> Optional[str]:
        """What is wrong with the process itself; None when every loop makes progress."""
        for thread in self._threads:
            if not thread.is_alive():
                return f"thread {thread.name} has ended"
        for loop in self._loops:
            if loop.stuck():
                return f"{loop.name} is stuck"
            if loop.bugs >= BUG_LIMIT:
                return f"{loop.name} failed {loop.bugs} times in a row on a bug"
        return None

    def watch(self, done: Callable[[], bool], tick: float) -> Optional[str]:
        """Feed the watchdog each `tick` seconds until `done` or something is sick."""
        while not done():
            self.bell.clear()
            trouble = self.sick()
            if trouble is not None:
                return trouble
            self._feed()
            self.bell.wait(tick)
        return None

    def stop(self, seconds: float) -> Sequence[str]:
        """Ask all to end, wait `seconds` in all; the names of the loops that still run."""
        self._ending.set()
        for loop in self._loops:
            loop.stop()
        deadline = self._clock.now() + seconds
        for thread in self._awaited:
            thread.join(max(0.0, deadline - self._clock.now()))
        return [thread.name for thread in self._awaited if thread.is_alive()]
