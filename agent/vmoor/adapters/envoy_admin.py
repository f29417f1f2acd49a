"""What our own Envoy knows, from its admin port. It reads and never writes."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Optional

from vmoor import errors
from vmoor.adapters import http
from vmoor.model.sight import Clusters

CLUSTERS = "http://127.0.0.1:15000/clusters"  # Istio's ProxyConfig.proxyAdminPort


class EnvoyAdmin:
    """Port Envoy."""

    def __init__(self, url: str = CLUSTERS) -> None:
        self._url = url
        self._session = http.Session()

    def clusters(self, endpoints: Collection[str], *, deadline: float) -> Optional[Clusters]:
        """Line by line: the whole is many MB in a large mesh."""
        end = time.monotonic() + deadline
        marks = {f"::{endpoint}::".encode(): endpoint for endpoint in endpoints}
        outbound: set[str] = set()
        inbound: set[bytes] = set()
        try:
            for line in self._session.stream(
                "GET", self._url, headers={}, deadline=deadline, idle=deadline
            ):
                if line.startswith(b"outbound|"):
                    outbound.update(e for mark, e in marks.items() if mark in line)
                elif line.startswith(b"inbound|"):
                    inbound.add(line.split(b"|", 2)[1])
                if time.monotonic() > end:
                    return None
        except (errors.Unavailable, http.NotOk):
            return None
        ports = frozenset(int(port) for port in inbound if port.isdigit())
        return Clusters(frozenset(outbound), ports)
