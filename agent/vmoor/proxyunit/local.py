"""HTTP to the proxy's own ports on loopback.

Bare sockets: http.client alone would bring ssl and email, more memory than the whole launcher.
"""

from __future__ import annotations

import re
import socket
import time

ADMIN = 15000  # Envoy
AGENT = 15020  # pilot-agent
READINESS = 15021  # Envoy's listener for readiness, which asks pilot-agent
_MOST = 2 << 20  # bytes of an answer
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})\b")


def ask(port: int, path: str, *, method: str = "GET", timeout: float = 1.0) -> tuple[int, str]:
    """Status and body. Raises OSError, also for an answer that is no HTTP or takes too long."""
    until = time.monotonic() + timeout
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as link:
        link.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        answer = b""
        while True:
            left = until - time.monotonic()
            if left <= 0 or len(answer) > _MOST:
                raise OSError(f"no whole answer from port {port} within {timeout:g} s")
            link.settimeout(left)
            chunk = link.recv(65536)
            if not chunk:
                return _parsed(answer, port)
            answer += chunk


def _parsed(answer: bytes, port: int) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    found = _STATUS.match(head)
    if not found:
        raise OSError(f"no HTTP answer from port {port}")
    return int(found.group(1)), body.decode(errors="replace")
