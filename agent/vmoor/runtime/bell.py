"""A latch that wakes one loop. It says "look now", never what happened."""

from __future__ import annotations

import threading


class Bell:
    """Rung by anyone, waited on by one loop.

    The loop clears it before it reads the world, so a ring between reading and waiting is never
    lost, and any number of rings is one more pass.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        self._event.set()

    def clear(self) -> None:
        self._event.clear()

    def wait(self, seconds: float) -> bool:
        """Wait until rung, at most `seconds`; tells whether it was rung."""
        return self._event.wait(seconds)
