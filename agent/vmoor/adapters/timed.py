"""An HTTP connection on which everything ends in time.

`requests` and `http.client` bound each read, so a server that drips a byte a second holds a
thread for ever. Here every connect, handshake, send and receive gets only what is left of the
whole call. One part can't be bounded: getaddrinfo, whose own limit is resolv.conf's (5 s x 2 by
default); addresses instead of names avoid it.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import socket
import ssl
import threading
import weakref
from collections.abc import Callable
from typing import Any, Optional
from urllib.parse import urlsplit

Left = Callable[[], float]  # seconds; raises socket.timeout when there are none


def dial(host: str, port: int, left: Left) -> socket.socket:
    """Try the host's addresses in order, each with an equal share of the time that is left."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for tries, (family, kind, proto, _, address) in zip(range(len(infos), 0, -1), infos):
        sock = socket.socket(family, kind, proto)
        try:
            sock.settimeout(left() / tries)
            sock.connect(address)
            return sock
        except OSError:
            sock.close()
            if tries == 1:
                raise
    raise OSError(f"{host} has no address")


# Of this process, whoever asked for them.
_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()
_OPEN_LOCK = threading.Lock()


def drop_moved() -> None:
    """End the connections that started from an address which this VM has no more.

    Nobody would ever answer on them, and who waits would wait for its whole deadline.
    """
    with _OPEN_LOCK:
        connections = list(_OPEN)
    for connection in connections:
        connection.drop_if_moved()


class Connection(http.client.HTTPConnection):
    """`until` is the clock's instant at which everything on it must be over."""

    def __init__(
        self,
        url: str,
        trust: Callable[[], ssl.SSLContext],
        clock: Callable[[], float],
        dial: Callable[[str, int, Left], socket.socket] = dial,
    ) -> None:
        parts = urlsplit(url)
        self._trust = trust if parts.scheme == "https" else None
        super().__init__(parts.hostname or "", parts.port or (443 if self._trust else 80))
        self._clock = clock
        self._dial = dial
        self._dropped = False
        self.until = 0.0
        self.response_class = self._response  # type: ignore[assignment]

    def left(self) -> float:
        if self._dropped:
            raise ConnectionAbortedError(errno.ECONNABORTED, "dropped")
        left = self.until - self._clock()
        if left <= 0:
            raise socket.timeout
        return left

    def connect(self) -> None:
        sock = self._dial(self.host, self.port, self.left)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._trust:
                # ssl bounds the handshake as a whole by this.
                sock.settimeout(self.left())
                sock = self._trust().wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
        with _OPEN_LOCK:
            _OPEN.add(self)

    def drop_if_moved(self) -> None:
        sock = self.sock
        with contextlib.suppress(OSError):  # closed meanwhile
            if sock is not None and not _is_ours(sock.family, sock.getsockname()[0]):
                self.drop()

    def drop(self) -> None:
        """For good, from any thread: who reads gets the end of the stream."""
        self._dropped = True  # first: a socket that is made just now is not used any more
        sock = self.sock
        with contextlib.suppress(OSError):  # closed meanwhile
            if sock is not None:
                # Not SSLSocket's own, which would let the reader go on without TLS.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(self.left())
        super().send(data)

    def fresh(self) -> bool:
        """Whether the server has neither closed this idle connection nor said anything on it."""
        if self.sock is None:
            return False
        self.sock.settimeout(0)
        try:
            self.sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False

    def _response(
        self, sock: socket.socket, method: Optional[str] = None
    ) -> http.client.HTTPResponse:
        paced: Any = _Paced(sock, self.left)
        return http.client.HTTPResponse(paced, method=method)


def _is_ours(family: int, address: str) -> bool:
    """Whether the VM still has this address: no other can be bound."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError as e:
            return e.errno != errno.EADDRNOTAVAIL
    return True


class _Paced:
    """All that HTTPResponse wants of a socket: a file. Its every read ends in time."""

    def __init__(self, sock: socket.socket, left: Left) -> None:
        self._sock = sock
        self._left = left

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(PacedReads(self._sock, self._left))


class PacedReads(io.RawIOBase):
    def __init__(self, sock: socket.socket, left: Left) -> None:
        super().__init__()
        self._sock = sock
        self._left = left
        # Counts as a user of the socket, which therefore outlives its connection's close().
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> Optional[int]:
        self._sock.settimeout(self._left())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
