"""A server at the other end of a socket that is none; time passes only as it drips."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from tests.fakes.clock import FakeClock


class Wire:
    """One scripted connection: (seconds until they come, bytes); the end closes it."""

    def __init__(self, clock: FakeClock, script: Sequence[tuple[float, bytes]]) -> None:
        self.clock = clock
        self.script = list(script)
        self.sent = b""
        self.closed = False
        self.timeout = 0.0

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def setsockopt(self, *_: Any) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    def recv(self, _: int) -> bytes:
        if self.script:
            raise BlockingIOError
        return b""

    def makefile(self, _mode: str, buffering: int) -> Wire:
        assert buffering == 0
        return self

    def readinto(self, buffer: memoryview) -> int:
        if not self.script:
            return 0
        delay, data = self.script.pop(0)
        if delay > self.timeout:
            self.clock.advance(self.timeout)
            raise socket.timeout
        self.clock.advance(delay)
        taken = data[: len(buffer)]
        buffer[: len(taken)] = taken
        if len(taken) < len(data):
            self.script.insert(0, (0.0, data[len(taken) :]))
        return len(taken)


class Net:
    """Hands out the scripted connections in order."""

    def __init__(self, *scripts: Sequence[tuple[float, bytes]]) -> None:
        self.clock = FakeClock()
        self.wires = [Wire(self.clock, script) for script in scripts]
        self.dialled: list[Wire] = []

    def dial(self, _host: str, _port: int, _left: Any) -> Any:
        if not self.wires:
            raise ConnectionRefusedError(111, "Connection refused")
        self.dialled.append(self.wires.pop(0))
        return self.dialled[-1]


def dripping(data: bytes, every: float) -> list[tuple[float, bytes]]:
    return [(every, bytes([byte])) for byte in data]
