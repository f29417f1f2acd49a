"""A latch that wakes one loop. It says "look now", never what happened."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Bell:
    """Rung by anyone, waited on by one loop.

    The loop clears it before it reads the world, so a ring between reading and waiting is never
    lost, and any number of rings is one more pass. `also` is called by whoever rings, for a loop
    that waits for something else as well: it must end that, and not wait itself.
    """

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        self._event = threading.Event()
        self._also = also

    def ring(self) -> None:
        self._event.set()
        self._also()

    def clear(self) -> None:
        self._event.clear()

    def wait(self, seconds: float) -> bool:
        """Wait until rung, at most `seconds`; tells whether it was rung."""
        return self._event.wait(seconds)
