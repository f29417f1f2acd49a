"""Services of a document that somebody else writes: a file, or what a command prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Optional

from vmoor import errors
from vmoor.config import build
from vmoor.config.settings import Settings
from vmoor.model.discovered import Found
from vmoor.model.record import parsed
from vmoor.ports import Clock, Files, Look
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

CALM_S = 300.0
RETRY_S = 30.0  # after a fault of this machine: a look at what did not change costs a process


class Documents:
    """One such source: `name` is its key and its field in Sources, `look` asks it. Writes `found`.

    A document that is wrong or cannot be had changes nothing: what the last good one said stays,
    over a restart of ours too, and the step fails. It is forgotten when the source is taken out.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[Any], Look],
        *,
        settings: Cell[Optional[Settings]],
        found: Cell[Found],
        files: Files,
        clock: Clock,
    ) -> None:
        self._name = name
        self._look = look
        self._settings = settings
        self._found = found
        self._files = files
        self._clock = clock
        self._kept = f"/var/lib/vmoor/{name}.json"
        self._begin(None)

    def _begin(self, source: Any) -> None:
        self._source = source
        self._version: object = None
        self._problems: Sequence[str] = ()
        self._trouble: Optional[errors.VmoorError] = None
        self._due = 0.0

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None:
            return Settled("waiting for the configuration", CALM_S, waiting=True)
        source = getattr(settings.sources, self._name)
        if source is None:
            self._begin(None)
            self._found.set(Found())
            self._files.remove(self._kept)
            return Settled("not configured", CALM_S, waiting=True)
        if source != self._source:
            if self._source is None:  # another one brings its own or nothing yet
                self._found.set(self._revived())
            self._begin(source)
            return Settled(f"looking at {source.shown}", 0.0, waiting=True)
        if self._clock.now() >= self._due:
            self._pass(source)
        return self._outcome(source, max(0.0, self._due - self._clock.now()))

    def _outcome(self, source: Any, left: float) -> Settled:
        trouble = self._trouble
        if trouble is not None:  # not raised: a source is asked in its own time, whatever it says
            return Settled(trouble.message, left, wrong=True, remedy=trouble.remedy)
        count = len(self._found.get().services)
        return Settled(f"{count} service{'' if count == 1 else 's'} of {source.shown}", left)

    def _pass(self, source: Any) -> None:
        self._due = self._clock.now() + source.period
        try:
            self._trouble = self._judged(self._look(source))
        except errors.VmoorError as e:
            self._trouble = e
            if isinstance(e, errors.LocalFault):
                self._due = self._clock.now() + max(RETRY_S, source.period)
        self._found.set(replace(self._found.get(), ready=True))

    def _judged(self, look: Look) -> Optional[errors.Rejected]:
        """Raises LocalFault; the next pass begins anew then."""
        if look.version != self._version:
            read = look.judge()
            if not read.problems:
                self._found.set(Found(build.services_from(read.document, self._name)))
                self._keep(read.document)
            self._version, self._problems = look.version, read.problems
        if not self._problems:
            return None
        first, others = self._problems[0], len(self._problems) - 1
        words = f"{first} (and {others} more)" if others else first
        return errors.Rejected(words, remedy=look.remedy)

    def _keep(self, document: build.Document) -> None:
        """As long as the document at most, or it could not be read again."""
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        note = text.encode()
        if note != self._note():
            self._files.write(self._kept, note, 0o600)

    def _note(self) -> Optional[bytes]:
        try:
            return self._files.read(self._kept)
        except errors.LocalFault:
            return None  # as if there were none

    def _revived(self) -> Found:
        note = parsed(self._note())
        try:
            return Found(build.services_from({"services": note["services"]}, self._name))
        except (AttributeError, KeyError, TypeError, ValueError):
            return Found(ready=False)  # none, or not what we wrote
