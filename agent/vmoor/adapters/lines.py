"""A line from a socket, which ends in time and is no longer than it may be."""

from __future__ import annotations

import socket
import time

PIECE = 64 << 10


def read(link: socket.socket, until: float, limit: int) -> bytes:
    """Up to its newline; without one if the other side ended, or `limit` bytes have none.

    `until` is time.monotonic() seconds. Raises OSError, which is socket.timeout past that.
    """
    got = bytearray()
    while not got.endswith(b"\n") and len(got) < limit:
        left = until - time.monotonic()
        if left <= 0:
            raise socket.timeout
        link.settimeout(left)
        piece = link.recv(min(PIECE, limit - len(got)))
        if not piece:
            break
        got += piece
    return bytes(got)
