"""What the demo tells: a line when something was seen, and at the end which were not.

A claim is declared before anything runs, so that what never came is missed too.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import requests

from tests.rig.errors import RigError

GREEN, RED, BOLD, DIM = "32", "31", "1", "2"
_WHAT = 64  # columns of a claim's words


class Unseen(Exception):
    """A line of the account was not so; the message says what was seen instead."""


@dataclass(frozen=True)
class Line:
    said: str
    seen: bool

    @property
    def first(self) -> str:
        """Errors of the rig go on with a journal, which is kept among the logs."""
        return self.said.partition("\n")[0]


class Account:
    """Thread-safe: VMs boot side by side."""

    def __init__(
        self, steps: Sequence[str], machines: Sequence[str], claims: Sequence[str]
    ) -> None:
        """Each step is expected of each machine (see `skip`), each claim once."""
        self._began = time.monotonic()
        self._steps, self._machines, self._claims = steps, machines, claims
        self._lines: dict[tuple[str, str], Line] = {}
        self._lock = threading.Lock()
        self._colour = sys.stdout.isatty()

    def heading(self, text: str) -> None:
        self._print(f"\n{self._paint(text, BOLD)}")

    def note(self, text: str) -> None:
        self._print(f"{self._stamp()}    {text}")

    def skip(self, step: str, machine: str) -> None:
        """The step does not exist for this machine."""
        self._lines[step, machine] = Line("-", seen=True)

    def line(self, what: str, look: Callable[[], str], who: str = "") -> bool:
        """`look` waits for it, asserts it and says it in a few words; whether it was seen."""
        try:
            line = Line(look(), seen=True)
        except (Unseen, RigError, OSError, requests.RequestException) as e:
            line = Line(str(e), seen=False)
        with self._lock:
            self._lines[what, who] = line
        what = f"{who:<8}{what}" if who else what
        self._print(f"{self._stamp()}  {self._mark(line)} {what:<{_WHAT}} {line.first}")
        return line.seen

    def fine(self) -> bool:
        return all(line.seen for _, _, line in self._all())

    def summary(self) -> None:
        self.heading("Summary")
        head = f"  {'seconds after power-on':<{_WHAT}}"
        self._print(head + "".join(f"{name:>9}" for name in self._machines))
        for step in self._steps:
            lines = [self._get(step, machine) for machine in self._machines]
            cells = "".join(f"{line.said if line.seen else '✗':>9}" for line in lines)
            self._print(f"{self._mark(*lines)} {step:<{_WHAT}}{cells}")
        self._print("")
        for claim in self._claims:
            line = self._get(claim, "")
            self._print(f"{self._mark(line)} {claim:<{_WHAT}} {line.first}")
        missing = [line for _, _, line in self._all() if not line.seen]
        took = f"{time.monotonic() - self._began:.0f} s"
        if missing:
            self._print(self._paint(f"\nnot seen: {len(missing)}; {took} in all.", RED))
        else:
            self._print(self._paint(f"\nEverything above was seen; {took} in all.", GREEN))

    def _all(self) -> Sequence[tuple[str, str, Line]]:
        wanted = [(s, m) for s in self._steps for m in self._machines]
        wanted += [(claim, "") for claim in self._claims]
        return [(what, who, self._get(what, who)) for what, who in wanted]

    def _get(self, what: str, who: str) -> Line:
        return self._lines.get((what, who), Line("not reached", seen=False))

    def _mark(self, *lines: Line) -> str:
        return self._paint("✓", GREEN) if all(x.seen for x in lines) else self._paint("✗", RED)

    def _stamp(self) -> str:
        return self._paint(f"{time.monotonic() - self._began:6.1f} s", DIM)

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text

    def _print(self, text: str) -> None:
        with self._lock, contextlib.suppress(BrokenPipeError):
            print(text, flush=True)
