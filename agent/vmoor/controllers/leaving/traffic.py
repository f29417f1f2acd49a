"""The traffic's side of a leave: until the mesh sends no more, and until what it sent has ended.

It is measured, never guessed: our own Envoy is one of the mesh's clients, so when it has forgotten
our endpoints the others have got the same push; and it is the server, so it counts what is open.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from vmoor.ports import Clock, Envoy

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.1  # istiod gathers changes that long before it pushes (PILOT_DEBOUNCE_AFTER)
UNSEEN_S = 0.5  # that, and a push: when our own Envoy never listed us, or can't be asked
SEEN_S = 10.0  # under ceaseless change istiod gathers for at most 10 s (PILOT_DEBOUNCE_MAX)
LOOK_S = 0.02
COUNT_S = 0.1
BUSY_S = 10.0  # Envoy's main thread answers, which a huge push may keep; if it is gone, none waits
LISTING_S = 2.0  # of a mesh of 5 000 endpoints it is 8 MB


class Traffic:
    """`pause` waits that many seconds; `tell` is a sentence for people."""

    def __init__(
        self,
        *,
        envoy: Envoy,
        clock: Clock,
        pause: Callable[[float], object],
        tell: Callable[[str], object],
    ) -> None:
        self._envoy = envoy
        self._clock = clock
        self._pause = pause
        self._tell = tell

    def until_forgotten(self, listed: Collection[str], ends: float) -> None:
        """`listed`: those of our endpoints, just written to be out, that our Envoy listed before.

        The bounds cost no traffic: the proxy serves on.
        """
        began = self._clock.now()
        least = DEBOUNCE_S if listed else UNSEEN_S
        while listed and self._clock.now() < min(began + SEEN_S, ends):
            clusters = self._envoy.clusters(listed, deadline=LISTING_S)
            if clusters is None:
                least = UNSEEN_S
                break
            if not clusters.outbound.intersection(listed):
                break
            self._pause(LOOK_S)
        rest = min(began + least, ends) - self._clock.now()
        if rest > 0:
            self._pause(rest)

    def drain(self, ends: float) -> int:
        """Clients are asked to go (GOAWAY, Connection: close) and may finish; how many have not.

        An Envoy that does not answer carries nothing that could be waited for.
        """
        if not self._envoy.drain(deadline=self._patience(ends)):
            return 0
        told = -1
        while True:
            count = self._envoy.requests(deadline=self._patience(ends)) or 0
            if count == 0 or self._clock.now() >= ends:
                return count
            if count != told:
                told = count
                self._tell(f"Leaving: {count} request{'' if count == 1 else 's'} to end")
            self._pause(min(COUNT_S, max(0.0, ends - self._clock.now())))

    def _patience(self, ends: float) -> float:
        return min(BUSY_S, max(COUNT_S, ends - self._clock.now()))
