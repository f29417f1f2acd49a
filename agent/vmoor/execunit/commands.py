"""Which commands root has configured. The agent's user names one, it cannot bring one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from vmoor import execunit
from vmoor.adapters import children
from vmoor.config import build
from vmoor.config.load import load, unchecked
from vmoor.errors import Misconfigured
from vmoor.proxyunit import settings, trusted


class Unknown(Exception):
    """The message says why there is nothing to run."""


# Service and index of a check, or the name of a hook; None is sources.exec.
Key = Union[tuple[str, int], str, None]


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    timeout: float  # seconds
    limit: int = execunit.OUTPUT_LIMIT  # bytes
    apart: bool = False  # stderr is no part of the output


class Commands:
    """The commands of the configuration; its files are read again when one has changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seen = ""
        self._found: Mapping[Key, Command] = {}
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
            self._found, self._trouble = {**self._found, **_configured(self._root)}, ""
        except (trusted.Untrusted, OSError) as e:
            self._found, self._trouble = {}, str(e)
        except Misconfigured as e:
            # As in the agent: what was accepted last runs on.
            self._trouble = f"cannot read the configuration: {e.problems[0]}"
            self._found = {**_salvaged(self._root), **self._found}

    def get(self, key: Key) -> Command:
        """Raises Unknown."""
        found = self._found.get(key)
        if found is None:
            if key is None:
                words = "no sources.exec"
            elif isinstance(key, str):
                words = f"no hooks.{key}"
            else:
                words = "services.{}.checks[{}] is no exec check".format(*key)
            raise Unknown(self._trouble or words)
        return found


def _configured(root: Path) -> Mapping[Key, Command]:
    """Raises Misconfigured."""
    return _commands(load(root).document)


def _salvaged(root: Path) -> Mapping[Key, Command]:
    """The agent runs on what it accepted; a runner that starts now has only the files."""
    return _commands(_mapping(unchecked(root)))


def _commands(document: Mapping[str, Any]) -> Mapping[Key, Command]:
    """Those that can be run, of a document that may be anything."""
    found: dict[Key, Command] = {}
    for name, service in _mapping(document.get("services")).items():
        checks = _mapping(service).get("checks")
        for i, check in enumerate(checks if isinstance(checks, list) else ()):
            with contextlib.suppress(TypeError, ValueError):
                argv = _argv(_mapping(check).get("exec"))
                found[name, i] = Command(argv, build.times_of(check)[1])
    source = _mapping(_mapping(document.get("sources")).get("exec"))
    with contextlib.suppress(TypeError, ValueError):
        argv, timeout = _argv(source.get("command")), build.exec_times_of(source)[1]
        found[None] = Command(argv, timeout, execunit.DOCUMENT_LIMIT, apart=True)
    for name, hook in _mapping(document.get("hooks")).items():
        with contextlib.suppress(TypeError):
            found[name] = Command(_argv(hook), execunit.HOOK_S)
    return found


def _argv(value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise TypeError("no command")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
