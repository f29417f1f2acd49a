"""Which TCP ports anything in this network namespace listens on.

The kernel is asked for the listening sockets alone (sock_diag(7), 0.3 ms). Reading
/proc/net/tcp walks its whole table of connections, 10 ms each and more with more memory, and is
left for kernels that have no tcp_diag and may load none.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmoor.errors import LocalFault

TIMEOUT_S = 1.0
TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_TCP_LISTEN = 10
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ASK = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states, any socket
_PORT = struct.Struct(">H")  # of struct inet_diag_msg, after four bytes


def ports(*, local: bool = True) -> frozenset[int]:
    """Without `local`, a listener on a loopback address does not count. Raises LocalFault."""
    return frozenset(
        port for address, port in _all() if local or not ipaddress.ip_address(address).is_loopback
    )


def _all() -> Sequence[tuple[bytes, int]]:
    try:
        return [each for family in (socket.AF_INET, socket.AF_INET6) for each in _asked(family)]
    except OSError:
        return [each for table in TABLES for each in _read(Path(table))]


def _asked(family: int) -> Iterator[tuple[bytes, int]]:
    width = 4 if family == socket.AF_INET else 16
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(TIMEOUT_S)
        ask = _ASK.pack(family, socket.IPPROTO_TCP, 0, 1 << _TCP_LISTEN)
        size = _HEADER.size + len(ask)
        kernel.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + ask)
        while True:
            told, at = kernel.recv(1 << 16), 0
            while at < len(told):
                length, kind, *_ = _HEADER.unpack_from(told, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (number,) = struct.unpack_from("=i", told, at + _HEADER.size)
                    raise OSError(-number, "sock_diag")
                # Both ports stand before the address.
                start = at + _HEADER.size + 8
                address = told[start : start + width]
                yield address, _PORT.unpack_from(told, at + _HEADER.size + 4)[0]
                at += (length + 3) & ~3


def _read(table: Path) -> Iterator[tuple[bytes, int]]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:
        return  # a kernel without IPv6
    except OSError as e:
        raise LocalFault(f"cannot read {table}: {e.strerror}") from e
    for line in lines:
        _, local, _, state = line.split(None, 4)[:4]
        if int(state, 16) == _TCP_LISTEN:
            host, _, port = local.partition(":")
            words = (int(host[i : i + 8], 16) for i in range(0, len(host), 8))
            yield b"".join(word.to_bytes(4, sys.byteorder) for word in words), int(port, 16)
