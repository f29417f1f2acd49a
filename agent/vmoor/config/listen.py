"""Where something is to listen, as a person writes it."""

from __future__ import annotations

import ipaddress

from vmoor.model.service import PROXY_PORTS

HIGHEST_PORT = 65535


def listen_at(listen: str) -> tuple[str, int]:
    """Of "127.0.0.1:9478" or "[::1]:9478". Raises ValueError, in words that follow the text."""
    host, _, port = listen.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if (":" in bare) is (bare == host):
            raise ValueError  # noqa: TRY301 - brackets are for IPv6, and for nothing else
        found = str(ipaddress.ip_address(bare)), int(port)
    except ValueError:
        raise ValueError("is not an address and a port such as 127.0.0.1:9478") from None
    if not 0 < found[1] <= HIGHEST_PORT:
        raise ValueError(f"has no port (1 to {HIGHEST_PORT})")
    if found[1] in PROXY_PORTS:
        raise ValueError(f"has {port}, a port of the proxy itself; choose another")
    return found
