"""Looks at what listens on this VM. Every look ends in time, whatever the other side does.

Never followed: a redirect, a proxy of the environment, a name (an address needs no resolver).
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import stat
import time
from pathlib import Path

from vmoor.adapters import execs, listeners, timed
from vmoor.errors import quoted
from vmoor.model.health import Listening, Probe
from vmoor.model.service import ExecProbe, FileProbe, GrpcProbe, HttpProbe, Polled, TcpProbe, Tls

BODY_LIMIT = 64 << 10  # bytes; what is beyond is not waited for


class LocalProber:
    """Port `Prober`."""

    def look(self, probe: Polled, timeout: float) -> Probe:
        if isinstance(probe, HttpProbe):
            return self.http(probe, timeout)
        if isinstance(probe, ExecProbe):
            return execs.look(probe, timeout)
        if isinstance(probe, FileProbe):
            return self.file(probe)
        if isinstance(probe, GrpcProbe):
            return self.grpc(probe, timeout)
        return self.tcp(probe, timeout)

    def http(self, probe: HttpProbe, timeout: float) -> Probe:
        began = time.monotonic()
        try:
            status, body = _answer(probe, began + timeout)
        except (OSError, ValueError) as e:  # also RemoteDisconnected, which is both
            return Probe(passed=False, words=_trouble(e, timeout))
        except http.client.HTTPException as e:
            return Probe(passed=False, words=f"not HTTP: {quoted(str(e) or type(e).__name__)}")
        low, high = probe.status
        if not low <= status <= high:
            return Probe(passed=False, words=f"{status}, want {low}-{high}")
        if probe.body.encode(errors="replace") not in body:
            return Probe(
                passed=False, words=f"{status}, but no {quoted(probe.body)!r} in the answer"
            )
        return Probe(passed=True, words=f"{status} in {_ms(began)}")

    def tcp(self, probe: TcpProbe, timeout: float) -> Probe:
        began = time.monotonic()
        try:
            timed.dial(_address(probe.host), probe.port, lambda: _left(began + timeout)).close()
        except (OSError, ValueError) as e:
            return Probe(passed=False, words=_trouble(e, timeout))
        return Probe(passed=True, words=f"connected in {_ms(began)}")

    def grpc(self, probe: GrpcProbe, timeout: float) -> Probe:
        try:
            from vmoor.adapters import grpc  # noqa: PLC0415 - h2 is large, and optional
        except ImportError:
            return Probe(passed=False, words="needs the package python3-h2")
        began = time.monotonic()
        try:
            words = grpc.ask(probe, lambda: _left(began + timeout))
        except (OSError, ValueError) as e:
            return Probe(passed=False, words=_trouble(e, timeout))
        if words != grpc.SERVING:
            return Probe(passed=False, words=words)
        return Probe(passed=True, words=f"{words} in {_ms(began)}")

    def file(self, probe: FileProbe) -> Probe:
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

    def listening(self) -> Listening:
        return listeners.look()


def _answer(probe: HttpProbe, until: float) -> tuple[int, bytes]:
    """Status and body of a whole answer, or one of BODY_LIMIT."""
    host = _address(probe.host)
    authority = f"[{host}]" if ":" in host else host
    tls = probe.tls or Tls()
    connection = timed.Connection(
        f"{'https' if probe.tls else 'http'}://{authority}:{probe.port}",
        lambda: _context(tls),
        time.monotonic,
        server_name=tls.server_name,
    )
    connection.until = until
    named = any(name.lower() == "host" for name in probe.headers)
    try:
        connection.putrequest(probe.method, probe.path, skip_host=named, skip_accept_encoding=True)
        for name, value in {"User-Agent": "vmoor", "Connection": "close", **probe.headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as answer:
            return answer.status, answer.read(BODY_LIMIT)
    finally:
        connection.close()


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


def _address(host: str) -> str:
    """Raises ValueError for a name: how long a resolver takes can't be bounded."""
    return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise socket.timeout
    return left


def _trouble(error: Exception, timeout: float) -> str:
    if isinstance(error, socket.timeout):
        return f"timed out after {timeout:g}s"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLCertVerificationError):
        return quoted(f"its certificate is refused: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return f"TLS: {quoted(error.reason or error).lower().replace('_', ' ')}"
    if isinstance(error, OSError):
        return quoted((error.strerror or str(error)).lower())
    return quoted(error)


def _ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f}ms"
