"""HTTP to the proxy's own ports on loopback.

Bare sockets: http.client alone would bring ssl and email, more memory than the whole launcher.
"""

from __future__ import annotations

import re
import socket
import time
from typing import Optional

ADMIN = 15000  # Envoy
AGENT = 15020  # pilot-agent
READINESS = 15021  # Envoy's listener for readiness, which asks pilot-agent
_MOST = 2 << 20  # bytes of an answer
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


def ask(port: int, path: str, *, method: str = "GET", timeout: float = 1.0) -> int:
    """The status. Raises OSError, also for an answer that is no HTTP or takes too long."""
    # Not to the end: an Envoy that drains answers at once, but closes a second later.
    return _status(_read(port, path, method, timeout, until=b"\r\n"), port)


def fetch(port: int, path: str, *, timeout: float = 1.0) -> str:
    """The whole answer, as it came. Raises OSError as `ask` does."""
    answer = _read(port, path, "GET", timeout, until=None)
    _status(answer, port)
    return answer.decode(errors="replace")


def _read(port: int, path: str, method: str, timeout: float, until: Optional[bytes]) -> bytes:
    deadline = time.monotonic() + timeout
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as link:
        link.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        answer = b""
        while until is None or until not in answer:
            left = deadline - time.monotonic()
            if left <= 0 or len(answer) > _MOST:
                raise OSError(f"no whole answer from port {port} within {timeout:g} s")
            link.settimeout(left)
            chunk = link.recv(65536)
            if not chunk:
                break
            answer += chunk
    return answer


def _status(answer: bytes, port: int) -> int:
    found = _STATUS.match(answer)
    if not found:
        raise OSError(f"no HTTP answer from port {port}")
    return int(found.group(1))
