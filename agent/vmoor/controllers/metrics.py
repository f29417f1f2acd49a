"""Serves the metrics where the configuration says, and tells when it can't.

There is no loop of it until that is first configured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional, Protocol

from vmoor.runtime.loop import Settled

CALM_S = 300.0
FLOOR_S = 0.1  # between two scrapes; where accept fails at once, nothing spins


class Server(Protocol):
    """adapters.exposition.Exposition as this controller needs it."""

    def serve(self) -> None:
        """Answers the next scrape, whenever it comes; returns without one when interrupted."""
        ...

    def interrupt(self) -> None:
        """For good, from any thread."""
        ...

    def close(self) -> None: ...


class Metrics:
    """Its loop is detached: a pass waits for a scrape.

    `wanted`: HOST:PORT, "" = none; `listen` raises LocalFault.
    """

    def __init__(self, wanted: Callable[[], str], listen: Callable[[str], Server]) -> None:
        self._wanted = wanted
        self._listen = listen
        self._at = ""
        self._server: Optional[Server] = None

    def changed(self) -> None:
        """By whoever rings the loop's bell."""
        server = self._server
        if server is not None and self._wanted() != self._at:
            server.interrupt()

    def reconcile(self) -> Settled:
        wanted = self._wanted()
        if wanted == self._at and self._server is not None:
            self._server.serve()
            return Settled(f"served on {wanted}", FLOOR_S)
        self._close()
        if not wanted:
            return Settled("not served", CALM_S)
        self._at, self._server = wanted, self._listen(wanted)
        return Settled(f"served on {wanted}", 0.0)

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
