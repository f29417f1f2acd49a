"""What an entry said over time, as the API server's watch tells it: nothing is missed."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Optional

import requests

from tests.rig.machine import Machine
from tests.system.fleet import SERVICE, Document, Fleet


class History:
    """Context manager; begins with what the entry says now, if there is one."""

    def __init__(self, fleet: Fleet, vm: Machine, service: str = SERVICE) -> None:
        self._api = fleet.api
        self._name = f"{service}.{vm.name}"
        self._seen: list[Optional[Document]] = []

    def __enter__(self) -> History:  # noqa: PYI034
        what = f"workloadentries?watch=1&fieldSelector=metadata.name%3D{self._name}"
        self._watch = self._api.get("networking.istio.io", what, stream=True, timeout=600)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.close()

    @property
    def words(self) -> list[str]:
        """True, False, none (no condition) or gone, without repetitions."""
        words = [_word(entry) for entry in tuple(self._seen)]
        return [word for i, word in enumerate(words) if i == 0 or words[i - 1] != word]

    def _read(self) -> None:
        # It ends by being closed, which urllib3 tells in several ways.
        with contextlib.suppress(requests.RequestException, AttributeError, ValueError, OSError):
            for line in self._watch.iter_lines(chunk_size=1):
                event = json.loads(line)
                self._seen.append(None if event["type"] == "DELETED" else event["object"])


def condition(entry: Optional[Document]) -> Document:
    """The Healthy condition, {} when there is none."""
    found = ((entry or {}).get("status") or {}).get("conditions") or []
    return next((dict(c) for c in found if c["type"] == "Healthy"), {})


def _word(entry: Optional[Document]) -> str:
    return "gone" if entry is None else str(condition(entry).get("status", "none"))
