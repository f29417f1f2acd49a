"""Which commands root has configured. The agent's user names one, it cannot bring one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmoor.adapters import children
from vmoor.config import build
from vmoor.config.load import load, unchecked
from vmoor.errors import Misconfigured
from vmoor.proxyunit import settings, trusted


class Unknown(Exception):
    """The message says why there is nothing to run."""


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    timeout: float  # seconds


class Commands:
    """The exec checks of the configuration; its files are read again when one has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen = ""
        self._found: Mapping[tuple[str, int], Command] = {}
        self._trouble = ""

    def refresh(self) -> None:
        seen = children.stamp(str(self._root))
        if seen == self._seen:
            return
        self._seen = seen
        try:
            for path in settings.paths(self._root):
                trusted.check(str(path))
            # What was taken out stays: until its reload the agent looks as before.
            self._found, self._trouble = {**self._found, **_exec_checks(self._root)}, ""
        except (trusted.Untrusted, OSError) as e:
            self._found, self._trouble = {}, str(e)
        except Misconfigured as e:
            # As in the agent: what was accepted last runs on.
            self._trouble = f"cannot read the configuration: {e.problems[0]}"
            self._found = {**_salvaged(self._root), **self._found}

    def get(self, service: str, check: int) -> Command:
        """Raises Unknown."""
        found = self._found.get((service, check))
        if found is None:
            raise Unknown(self._trouble or f"services.{service}.checks[{check}] is no exec check")
        return found


def _exec_checks(root: Path) -> Mapping[tuple[str, int], Command]:
    """Raises Misconfigured."""
    return {
        (name, i): Command(check["exec"], build.times_of(check)[1])
        for name, service in load(root).document.get("services", {}).items()
        for i, check in enumerate(service.get("checks", ()))
        if "exec" in check
    }


def _salvaged(root: Path) -> Mapping[tuple[str, int], Command]:
    """The agent runs on what it accepted; a runner that starts now has only the files."""
    found = {}
    services = _mapping(_mapping(unchecked(root)).get("services"))
    for name, service in services.items():
        checks = _mapping(service).get("checks")
        for i, check in enumerate(checks if isinstance(checks, list) else ()):
            argv = _mapping(check).get("exec")
            if isinstance(argv, list) and argv and all(isinstance(a, str) for a in argv):
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    found[name, i] = Command(argv, build.times_of(check)[1])
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
