"""What others know of a VM, with their own timestamps: Vault's audit log and the API server.

Everything runs on one machine, so all wall clocks are the same one. Instants are Unix seconds.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Optional

import requests

from tests.rig.openbao import OpenBao
from tests.rig.rig import Rig


def unix(text: str) -> float:
    """2026-11-24T06:40:05.123456789Z, with any number of decimals."""
    whole, fraction = re.fullmatch(r"(.*?)(\.\d+)?Z", text).groups()  # type: ignore[union-attr]
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(fraction or 0)


class Audit:
    """Requests that Vault granted, as it logged them."""

    def __init__(self, vault: OpenBao) -> None:
        self._file = vault.audit.open()
        self._lock = threading.Lock()
        self._granted: list[tuple[str, str, float]] = []
        self._rest = ""

    def granted(self, address: str, path: str, count: int = 1) -> Optional[float]:
        """When the `count`th request of this address below `path` was granted; None: not yet."""
        with self._lock:
            self._read()
            times = [at for who, what, at in self._granted if who == address and path in what]
        return times[count - 1] if len(times) >= count else None

    def _read(self) -> None:
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in map(json.loads, lines):
            if line["type"] == "response" and not line.get("error"):
                request = line["request"]
                who = request.get("remote_address", "")
                self._granted.append((who, request["path"], unix(line["time"])))


class Api:
    """The API server as its administrator sees it."""

    def __init__(self, rig: Rig, namespace: str) -> None:
        self._rig = rig
        self._namespace = namespace

    def get(self, group: str, what: str, **more: Any) -> requests.Response:
        url = f"{self._rig.kube.url}/apis/{group}/v1/namespaces/{self._namespace}/{what}"
        bearer = {"Authorization": f"Bearer {self._rig.kube.token}"}
        return self._rig.http("GET", url, headers=bearer, **more)

    def renewed(self, vm: str) -> float:
        """The renewTime of a VM's Lease."""
        lease = self.get("coordination.k8s.io", f"leases/vmoor-{vm}").json()
        return unix(lease["spec"]["renewTime"])


class Entries:
    """Since when each WorkloadEntry has been there and been healthy, until the API server ends."""

    def __init__(self, api: Api) -> None:
        self._seen: dict[tuple[str, str], float] = {}
        what = "workloadentries?watch=1"
        self._watch = api.get("networking.istio.io", what, stream=True, timeout=3600)
        # Never closed from outside: close() waits for the lock of the read that it should end.
        threading.Thread(target=self._read, daemon=True).start()

    def since(self, name: str, what: str) -> Optional[float]:
        """`what` is there or healthy; the first time it was so."""
        return self._seen.get((name, what))

    def _read(self) -> None:
        with contextlib.suppress(requests.RequestException):
            for line in self._watch.iter_lines(chunk_size=1):
                self._learn(json.loads(line)["object"], time.time())

    def _learn(self, entry: Mapping[str, Any], now: float) -> None:
        name = entry["metadata"]["name"]
        self._seen.setdefault((name, "there"), now)
        conditions = (entry.get("status") or {}).get("conditions") or []
        if any(c["type"] == "Healthy" and c["status"] == "True" for c in conditions):
            self._seen.setdefault((name, "healthy"), now)
