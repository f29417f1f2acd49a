"""What our own Envoy knows, and its drain, by its admin port."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from typing import Optional

from vmoor import errors
from vmoor.adapters import http
from vmoor.model.sight import Clusters

ADMIN = "http://127.0.0.1:15000"  # Istio's ProxyConfig.proxyAdminPort
# Listeners go on accepting, so that clients who have not heard of it yet are served.
DRAIN = "drain_listeners?inboundonly&graceful&skip_exit"
# A stream is a request, and so is a TCP connection.
OPEN = re.compile(rb"inbound\|(\d+)\|.*::rq_active::(\d+)$")


class EnvoyAdmin:
    """Port Envoy."""

    def __init__(self, url: str = ADMIN) -> None:
        self._url = url
        self._session = http.Session()

    def clusters(self, endpoints: Collection[str], *, deadline: float) -> Optional[Clusters]:
        marks = {f"::{endpoint}::".encode(): endpoint for endpoint in endpoints}
        outbound: set[str] = set()
        inbound: set[bytes] = set()
        try:
            for line in self._listing(deadline):
                if line.startswith(b"outbound|"):
                    outbound.update(e for mark, e in marks.items() if mark in line)
                elif line.startswith(b"inbound|"):
                    inbound.add(line.split(b"|", 2)[1])
        except (errors.Unavailable, http.NotOk):
            return None
        ports = frozenset(int(port) for port in inbound if port.isdigit())
        return Clusters(frozenset(outbound), ports)

    def requests(
        self, ports: Optional[Collection[int]] = None, *, deadline: float
    ) -> Optional[int]:
        count = 0
        try:
            for line in self._listing(deadline):
                found = OPEN.match(line.rstrip())
                if found and (ports is None or int(found[1]) in ports):
                    count += int(found[2])
        except (errors.Unavailable, http.NotOk):
            return None
        return count

    def drain(self, *, deadline: float) -> bool:
        try:
            answer = self._session.request(
                "POST", f"{self._url}/{DRAIN}", headers={}, deadline=deadline
            )
        except errors.Unavailable:
            return False
        finally:
            self._session.close()
        return answer.status == 200  # noqa: PLR2004 - HTTP

    def _listing(self, deadline: float) -> Iterator[bytes]:
        """Line by line: the whole is many MB in a large mesh."""
        end = time.monotonic() + deadline
        for line in self._session.stream(
            "GET", f"{self._url}/clusters", headers={}, deadline=deadline, idle=deadline
        ):
            yield line
            if time.monotonic() > end:
                raise errors.Unavailable("cannot list clusters: Envoy is too slow")
