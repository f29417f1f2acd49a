"""Requests of one VM to a service of the mesh, counted; what a user of the service would feel.

The sockets are the test's own, made in the VM's network: they are captured by the VM's rules and
go through its Envoy like those of any of its programs.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Optional

from tests.rig.machine import Machine


@dataclass(frozen=True)
class Answer:
    at: float  # time.monotonic()
    ok: bool
    body: str  # the answering VM's name, or what went wrong


@dataclass
class Load:
    """`workers` connections, `rate` requests a second in all, until the block ends.

    One request is tried once: a retry that hides a failure is the proxy's, never ours.
    """

    client: Machine
    address: str
    host: str
    port: int = 80
    workers: int = 4
    rate: float = 200.0
    answers: list[Answer] = field(default_factory=list)

    def __enter__(self) -> Load:  # noqa: PYI034
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(n,), daemon=True)
            for n in range(self.workers)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(10)

    def _work(self, number: int) -> None:
        period = self.workers / self.rate
        due = time.monotonic() + period * number / self.workers
        connection: Optional[http.client.HTTPConnection] = None
        while not self._done.wait(max(0.0, due - time.monotonic())):
            due = max(due + period, time.monotonic() - period)
            try:
                if connection is None:
                    connection = self._connect()
                connection.request("GET", "/", headers={"Host": self.host})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace").strip()
                said = body if answer.status == 200 else f"{answer.status} {body}"
                self.answers.append(Answer(time.monotonic(), answer.status == 200, said))
            except (OSError, http.client.HTTPException) as e:
                self.answers.append(Answer(time.monotonic(), False, f"{type(e).__name__}: {e}"))
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, self.port)
        connection.sock = self.client.socket()
        connection.sock.settimeout(5.0)
        connection.sock.connect((self.address, self.port))
        return connection

    def since(self, began: float) -> list[Answer]:
        return [a for a in self.answers if a.at >= began]

    @property
    def failed(self) -> list[Answer]:
        return [a for a in self.answers if not a.ok]

    def spread(self) -> dict[str, int]:
        """How many answers each VM gave."""
        count: dict[str, int] = {}
        for answer in self.answers:
            if answer.ok:
                count[answer.body] = count.get(answer.body, 0) + 1
        return dict(sorted(count.items()))
