"""What listens on the VM and what it answers; looks end when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

from vmoor.model.health import Listening, Probe
from vmoor.model.service import HttpProbe, Polled, TcpProbe
from vmoor.runtime.pool import Done, Ticket


class FakeProbes:
    """`ports` listen; an HTTP server answers `statuses` by port and path, else 404.

    `hold` keeps looks from ending; not to be `begins` from beginning.
    """

    def __init__(self, *ports: int) -> None:
        self.ports = set(ports)
        self.hidden: set[int] = set()
        self.statuses: dict[tuple[int, str], int] = {}
        self.asked: list[str] = []
        self.scans = 0
        self.hold = False
        self.begins = True
        self.tickets: list[Ticket] = []
        self.error: Optional[Exception] = None
        self._open: list[tuple[Any, Polled]] = []

    def submit(
        self, key: Any, probe: Polled, timeout: float, *, quiet: Callable[[Probe], bool]
    ) -> Ticket:
        self._open.append((key, probe))
        self.tickets.append(Ticket(begun=self.begins))
        return self.tickets[-1]

    def give_up(self, ticket: Ticket) -> None:
        ticket.given_up = True

    def take(self) -> Sequence[Done[Any, Probe]]:
        if self.hold:
            return []
        done = [
            Done(key, None if self.error else self._look(probe), self.error)
            for key, probe in self._open
        ]
        self._open = []
        return done

    def open(self) -> int:
        return len(self._open)

    def _look(self, probe: Polled) -> Probe:
        if isinstance(probe, HttpProbe):
            return self._http(probe)
        assert isinstance(probe, TcpProbe)
        return self._tcp(probe)

    def _http(self, probe: HttpProbe) -> Probe:
        self.asked.append(f"http {probe.port} {probe.path}")
        if probe.port not in self.ports:
            return Probe(passed=False, words="connection refused")
        status = self.statuses.get((probe.port, probe.path), 404)
        low, high = probe.status
        if low <= status <= high:
            return Probe(passed=True, words=f"{status} in 1ms")
        return Probe(passed=False, words=f"{status}, want {low}-{high}")

    def _tcp(self, probe: TcpProbe) -> Probe:
        self.asked.append(f"tcp {probe.port}")
        if probe.port in self.ports:
            return Probe(passed=True, words="connected in 1ms")
        return Probe(passed=False, words="connection refused")

    def listening(self) -> Listening:
        self.scans += 1
        return Listening(frozenset(self.ports), frozenset(self.hidden))
