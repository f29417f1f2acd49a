"""What all looks have in common: where they go, how long they took, why they failed."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from functools import lru_cache

from vmoor.errors import quoted


@lru_cache(maxsize=256)
def address(host: str) -> str:
    """Raises ValueError for a name: how long a resolver takes can't be bounded."""
    return str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def left(until: float) -> float:
    """Seconds; raises socket.timeout when there are none."""
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise socket.timeout
    return seconds


def trouble(error: Exception, timeout: float) -> str:
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


def ms(began: float) -> str:
    return f"{(time.monotonic() - began) * 1000:.0f}ms"
