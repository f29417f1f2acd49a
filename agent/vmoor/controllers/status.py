"""Tells people: STATUS= of the unit, /run/vmoor/status.json, one line when the VM moors."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vmoor.model import status
from vmoor.ports import Clock, Files
from vmoor.runtime.loop import Loop, Settled

log = logging.getLogger(__name__)

PATH = "/run/vmoor/status.json"
CALM_S = 5.0  # also while nothing changes: a document that ages has no writer (cli/statusfile)


class Status:
    """`snapshot` gathers what every cell says now; `tell` is sd_notify's STATUS=."""

    def __init__(
        self,
        snapshot: Callable[[], status.Snapshot],
        tell: Callable[[str], None],
        files: Files,
        clock: Clock,
    ) -> None:
        self._snapshot = snapshot
        self._tell = tell
        self._files = files
        self._started = clock.now()
        self._reached: dict[str, float] = {}
        self._headline = ""
        self._moored = self._told = False

    def reconcile(self) -> Settled:
        snap = self.look()
        document = status.document(snap)
        self._files.write(PATH, json.dumps(document).encode(), 0o644)
        if document["headline"] != self._headline:
            self._headline = document["headline"]
            self._tell(self._headline)
        self._milestones(snap)
        self._transition(document)
        return Settled(document["state"], CALM_S)

    def look(self) -> status.Snapshot:
        """What is so now, also for other threads."""
        return replace(self._snapshot(), before=self._moored)

    def left(self) -> None:
        """The last word of an agent that has taken its VM out of the mesh; loops have ended."""
        words = {"state": "left", "headline": "Left the mesh", "blocked_at": None}
        document = {**status.document(self._snapshot()), **words}
        self._files.write(PATH, json.dumps(document).encode(), 0o644)
        self._tell(words["headline"] or "")

    def _milestones(self, snap: status.Snapshot) -> None:
        for name, reached in (
            ("credentials", snap.credentials),
            ("proxy", snap.proxy.live),
            ("mesh", status.moored(snap)),
        ):
            if reached:
                self._reached.setdefault(name, snap.now)

    def _transition(self, document: Mapping[str, Any]) -> None:
        moored = document["state"] != "not-moored"
        if moored and not self._moored:
            words = "moored again" if self._told else self._moored_in()
            self._told = True
            log.info("%s", words, extra={"VMOOR_EVENT": "moored"})
        elif self._moored and not moored:
            log.warning("%s", document["headline"], extra={"VMOOR_EVENT": "unmoored"})
        self._moored = moored

    def _moored_in(self) -> str:
        """How long mooring took, and what each step added to the one before (seconds)."""
        last, parts = self._started, []
        for name, at in sorted(self._reached.items(), key=lambda item: item[1]):
            parts.append(f"{name} {max(0.0, at - last):.1f}")
            last = max(last, at)
        return f"moored in {last - self._started:.1f}s ({', '.join(parts)})"


def steps(loops: Sequence[Loop]) -> Sequence[status.Step]:
    """What the loops' outcomes say, as the model's steps."""
    return [_step(loop) for loop in loops]


def _step(loop: Loop) -> status.Step:
    outcome = loop.outcome.get()
    return status.Step(
        name=loop.name,
        state=outcome.state,
        words=outcome.words,
        remedy=outcome.remedy,
        since=outcome.since,
        next_try=outcome.next_try,
    )
