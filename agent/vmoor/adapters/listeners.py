"""Which TCP ports anything in this network namespace listens on.

The kernel is asked for the listening sockets alone (sock_diag(7), 0.3 ms). Reading
/proc/net/tcp walks its whole table of connections, 10 ms each and more with more memory, and is
left for kernels that have no tcp_diag and may load none.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from vmoor.errors import LocalFault
from vmoor.model.health import Listening

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
_SOCKET = struct.Struct(">Hxx16s")  # of struct inet_diag_msg, after four bytes


def look() -> Listening:
    """Raises LocalFault."""
    try:
        found = [one for family in (socket.AF_INET, socket.AF_INET6) for one in _asked(family)]
    except OSError:
        found = [one for table in TABLES for one in _read(Path(table))]
    ports = frozenset(port for port, _ in found)
    return Listening(ports, ports - {port for port, loopback in found if not loopback})


def ports() -> frozenset[int]:
    """Raises LocalFault."""
    return look().ports


def _asked(family: int) -> Iterator[tuple[int, bool]]:
    """Port, and whether the address is a loopback one."""
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
                port, address = _SOCKET.unpack_from(told, at + _HEADER.size + 4)
                yield port, _is_loopback(address[:4] if family == socket.AF_INET else address)
                at += (length + 3) & ~3


def _is_loopback(address: bytes) -> bool:
    """4 or 16 bytes as on the wire."""
    mapped = address[12:] if address[:12] == bytes(10) + b"\xff\xff" else address
    return mapped[0] == 127 if len(mapped) == 4 else mapped == bytes(15) + b"\x01"  # noqa: PLR2004


def _read(table: Path) -> Iterator[tuple[int, bool]]:
    try:
        lines = table.read_text(encoding="ascii").splitlines()[1:]
    except FileNotFoundError:
        return  # a kernel without IPv6
    except OSError as e:
        raise LocalFault(f"cannot read {table}: {e.strerror}") from e
    for line in lines:
        _, local, _, state = line.split(None, 4)[:4]
        if int(state, 16) == _TCP_LISTEN:
            host, _, port = local.rpartition(":")
            # Words of 32 bits, each in the order of this machine.
            words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
            yield int(port, 16), _is_loopback(struct.pack(f"={len(words)}I", *words))
