"""Looks at what listens on this VM. Every look ends in time, whatever the other side does.

Never followed: a redirect, a proxy of the environment, a name (an address needs no resolver).
"""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar, Union

from vmoor.adapters import execs, listeners, looks, timed
from vmoor.adapters.answer import Exchange
from vmoor.adapters.sweep import PIECE, Sweep
from vmoor.errors import quoted
from vmoor.model.health import Listening, Probe
from vmoor.model.service import ExecProbe, FileProbe, GrpcProbe, HttpProbe, Polled, TcpProbe, Tls
from vmoor.runtime.pool import Done, Pool, Ticket

K = TypeVar("K")
THREADS = 8
Blocking = Union[FileProbe, ExecProbe, GrpcProbe, HttpProbe]


class Probes(Generic[K]):
    """Port `Probes`: plain looks go to one thread for all, those that block to a few others."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._sweep: Sweep[K] = Sweep(ring, "sweep")
        self._pool: Pool[K, Probe] = Pool(THREADS, ring, "probe")

    def submit(
        self, key: K, probe: Polled, timeout: float, *, quiet: Callable[[Probe], bool]
    ) -> Ticket:
        if isinstance(probe, TcpProbe) or (isinstance(probe, HttpProbe) and probe.tls is None):
            return self._sweep.submit(key, probe, timeout, quiet=quiet)
        return self._pool.submit(key, partial(look, probe, timeout), quiet=quiet)

    def give_up(self, ticket: Ticket) -> None:
        self._pool.give_up(ticket)  # a plain look ends by itself

    def take(self) -> Sequence[Done[K, Probe]]:
        return [*self._sweep.take(), *self._pool.take()]

    def listening(self) -> Listening:
        return listeners.look()


def look(probe: Blocking, timeout: float) -> Probe:
    began = time.monotonic()
    try:
        if isinstance(probe, FileProbe):
            return _file(probe)
        if isinstance(probe, ExecProbe):
            return execs.look(probe, timeout)
        if isinstance(probe, GrpcProbe):
            return _grpc(probe, began, timeout)
        return _https(probe, probe.tls or Tls(), began, timeout)
    except (OSError, ValueError) as e:
        return Probe(passed=False, words=looks.trouble(e, timeout))


def _https(probe: HttpProbe, tls: Tls, began: float, timeout: float) -> Probe:
    host, until = looks.address(probe.host), began + timeout
    exchange, context = Exchange(probe, host, began), _context(tls)
    with timed.dial(host, probe.port, lambda: looks.left(until)) as plain:
        plain.settimeout(looks.left(until))  # ssl bounds the handshake as a whole by this
        with context.wrap_socket(plain, server_hostname=tls.server_name or host) as sock:
            sock.settimeout(looks.left(until))
            sock.sendall(exchange.request)
            while True:
                sock.settimeout(looks.left(until))
                seen = exchange.feed(sock.recv(PIECE))
                if seen is not None:
                    return seen


def _grpc(probe: GrpcProbe, began: float, timeout: float) -> Probe:
    try:
        from vmoor.adapters import grpc  # noqa: PLC0415 - h2 is large, and optional
    except ImportError:
        return Probe(passed=False, words="needs the package python3-h2")
    words = grpc.ask(probe, lambda: looks.left(began + timeout))
    if words != grpc.SERVING:
        return Probe(passed=False, words=words)
    return Probe(passed=True, words=f"{words} in {looks.ms(began)}")


def _file(probe: FileProbe) -> Probe:
    """A time in the future counts as young: a clock that is set back is no fault of it."""
    path = quoted(probe.path)
    try:
        seen = Path(probe.path).stat()
    except (OSError, ValueError) as e:  # a zero byte in it
        why = e.strerror if isinstance(e, OSError) else "no path"
        return Probe(passed=False, words=f"{path}: {(why or 'cannot be read').lower()}")
    if not stat.S_ISREG(seen.st_mode):
        return Probe(passed=False, words=f"{path} is not a regular file")
    age = max(0.0, time.time() - seen.st_mtime)
    if probe.max_age is not None and age > probe.max_age:
        words = f"{path} was written {age:.0f}s ago, want {probe.max_age:g}s at most"
        return Probe(passed=False, words=words)
    return Probe(passed=True, words=f"{path} exists")


def _context(tls: Tls) -> ssl.SSLContext:
    """From the files as they are now: certificates are renewed. Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    files = tls.ca
    try:
        if tls.ca:
            context.load_verify_locations(tls.ca)
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        files = f"{tls.cert} with {tls.key}"
        if tls.cert:
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            context.load_cert_chain(tls.cert, tls.key, password="")
    except ssl.SSLError as e:
        reason = e.reason.replace("_", " ").lower() if e.reason else "not PEM, or encrypted"
        raise ValueError(f"cannot use {files}: {reason}") from None
    except OSError as e:
        raise ValueError(f"cannot read {files}: {(e.strerror or '').lower()}") from None
    return context
