"""What an entry said over time, as the API server's watch tells it: nothing is missed."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Optional

import requests

from tests.rig.machine import Machine
from tests.system.fleet import SERVICE, Document, Fleet

LASTS_S = 120


class History:
    """Begins with what the entry says now, if there is one; the watch ends by itself."""

    def __init__(self, fleet: Fleet, vm: Machine, service: str = SERVICE) -> None:
        name = f"{service}.{vm.name}"
        self._seen: list[Optional[Document]] = []
        self.writes: list[float] = []  # time.monotonic() of all, the first is from before
        # Not closed: that would wait for the next event, which the thread is reading.
        what = f"workloadentries?watch=1&timeoutSeconds={LASTS_S}&fieldSelector=metadata.name%3D"
        watch = fleet.api.get("networking.istio.io", what + name, stream=True, timeout=LASTS_S)
        threading.Thread(target=self._read, args=(watch,), daemon=True).start()

    @property
    def words(self) -> list[str]:
        """True, False, none (no condition) or gone, without repetitions."""
        words = [_word(entry) for entry in tuple(self._seen)]
        return [word for i, word in enumerate(words) if i == 0 or words[i - 1] != word]

    def _read(self, watch: requests.Response) -> None:
        with contextlib.suppress(requests.RequestException):  # the rig may end first
            for line in watch.iter_lines(chunk_size=1):
                event = json.loads(line)
                self.writes.append(time.monotonic())
                self._seen.append(None if event["type"] == "DELETED" else event["object"])


def condition(entry: Optional[Document]) -> Document:
    """The Healthy condition, {} when there is none."""
    found = ((entry or {}).get("status") or {}).get("conditions") or []
    return next((dict(c) for c in found if c["type"] == "Healthy"), {})


def _word(entry: Optional[Document]) -> str:
    return "gone" if entry is None else str(condition(entry).get("status", "none"))
