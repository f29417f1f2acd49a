"""HTTP/2 with streams that live as long as a test wants: what a gRPC application would feel.

Server and client are the test's own, over sockets that it makes in a VM's network: what they send
is captured there and goes through that VM's Envoy.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Optional

import h2.config
import h2.connection
import h2.events
import h2.exceptions

PIECE_S = 0.05
LIVE = "/live"  # answers with a piece each PIECE_S until the server is told to finish


class Server:
    """Context manager over a listening socket; any path but LIVE is answered at once."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.finish = threading.Event()

    def __enter__(self) -> Server:  # noqa: PYI034
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.finish.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # or accept() would keep the port
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        wire = Wire(link, client=False)
        live: set[int] = set()
        with contextlib.suppress(OSError, EOFError, h2.exceptions.ProtocolError), link:
            while True:
                for event in wire.events(PIECE_S):
                    if isinstance(event, h2.events.RequestReceived):
                        wire.h2.send_headers(event.stream_id, [(":status", "200")])
                        if dict(event.headers)[b":path"] == LIVE.encode():
                            live.add(event.stream_id)
                        else:
                            wire.h2.end_stream(event.stream_id)
                    elif isinstance(event, h2.events.StreamReset):
                        live.discard(event.stream_id)
                for stream in tuple(live):
                    wire.h2.send_data(stream, b".", end_stream=self.finish.is_set())
                    if self.finish.is_set():
                        live.discard(stream)
                wire.flush()


@dataclass
class Stream:
    """What a client saw of one request; instants are time.monotonic(), None = not."""

    began: float
    pieces: int = 0
    ended: Optional[float] = None
    broken: Optional[float] = None  # a reset, or the connection's end before the stream's


@dataclass
class Client:
    """Context manager: one connection, which also asks for / each PIECE_S until a GOAWAY."""

    link: socket.socket
    authority: str
    goaway: Optional[float] = None
    _streams: dict[int, Stream] = field(default_factory=dict)

    def __enter__(self) -> Client:  # noqa: PYI034
        self._wire = Wire(self.link, client=True)
        self.live = self._ask(LIVE)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.link.close()
        self._thread.join(5)

    @property
    def broken(self) -> list[Stream]:
        return [stream for stream in tuple(self._streams.values()) if stream.broken]

    def _ask(self, path: str) -> Stream:
        number = self._wire.h2.get_next_available_stream_id()
        headers = [(":method", "GET"), (":scheme", "http"), (":path", path),
                   (":authority", self.authority)]  # fmt: skip
        self._wire.h2.send_headers(number, headers, end_stream=True)
        self._wire.flush()
        self._streams[number] = Stream(time.monotonic())
        return self._streams[number]

    def _read(self) -> None:
        try:
            while not self.live.ended:
                for event in self._wire.events(PIECE_S):
                    self._heed(event)
                if self.goaway is None:
                    self._ask("/")
        except (OSError, EOFError, h2.exceptions.ProtocolError):
            for stream in self._streams.values():
                if stream.ended is None:
                    stream.broken = stream.broken or time.monotonic()

    def _heed(self, event: Any) -> None:
        now = time.monotonic()
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, Goaway):
            self.goaway = self.goaway or now
        elif stream is None:
            return
        elif isinstance(event, h2.events.DataReceived):
            stream.pieces += len(event.data)
            self._wire.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = now
        elif isinstance(event, h2.events.StreamReset):
            stream.broken = now


class Goaway:
    """In place of h2's event: after it h2 takes in no frame of the streams that go on."""


class Wire:
    """One side of a connection."""

    def __init__(self, link: socket.socket, *, client: bool) -> None:
        self._link = link
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client))
        self.h2.initiate_connection()
        self._rest = b""
        self._client = client
        self.flush()

    def flush(self) -> None:
        self._link.sendall(self.h2.data_to_send())

    def events(self, seconds: float) -> list[Any]:
        """What came within that time. Raises EOFError at the connection's end."""
        self._link.settimeout(seconds)
        try:
            data = self._link.recv(65536)
        except TimeoutError:
            return []
        if not data:
            raise EOFError
        data, goaway = self._without_goaway(data)
        found = list(self.h2.receive_data(data)) if data else []
        self.flush()
        return [*found, *([Goaway()] if goaway else [])]

    def _without_goaway(self, data: bytes) -> tuple[bytes, bool]:
        """RFC 9113, 4.1: length (3 bytes), type (1), flags (1), stream (4); GOAWAY is type 7."""
        if not self._client:  # nobody sends one to a server, and the preface is no frame
            return data, False
        rest, kept, goaway = self._rest + data, b"", False
        while len(rest) >= 9:
            end = 9 + int.from_bytes(rest[:3], "big")
            if len(rest) < end:
                break
            if rest[3] == 7:
                goaway = True
            else:
                kept += rest[:end]
            rest = rest[end:]
        self._rest = rest
        return kept, goaway
