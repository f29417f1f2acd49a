"""What our own Envoy knows, from its admin port. It reads and never writes."""

from __future__ import annotations

import time
from typing import Optional

from vmoor import errors
from vmoor.adapters import http

CLUSTERS = "http://127.0.0.1:15000/clusters"  # Istio's ProxyConfig.proxyAdminPort
DEADLINE_S = 0.3


class EnvoyAdmin:
    """Port Envoy."""

    def __init__(self, url: str = CLUSTERS) -> None:
        self._url = url
        self._session = http.Session()

    def knows(self, endpoint: str) -> Optional[bool]:
        """Line by line: the whole is many MB in a large mesh."""
        end = time.monotonic() + DEADLINE_S
        mark = f"::{endpoint}::".encode()
        try:
            for line in self._session.stream(
                "GET", self._url, headers={}, deadline=DEADLINE_S, idle=DEADLINE_S
            ):
                if line.startswith(b"outbound|") and mark in line:
                    return True
                if time.monotonic() > end:
                    return None
        except (errors.Unavailable, http.NotOk):
            return None
        return False
