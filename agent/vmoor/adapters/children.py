"""Work for libraries that the idle daemon must not carry, done in a child that ends.

jsonschema and PyYAML (validation) and jinja2 (rendering) cost 15 MB together; the daemon needs
them for a moment at start and on SIGHUP. A child that is certain to be needed starts early, beside
the daemon's own imports or its wait for Vault: 0.2 s of a VM's first start.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from vmoor import __version__
from vmoor.adapters import run
from vmoor.errors import EXIT_CONFIG, LocalFault, quoted
from vmoor.model import record

if TYPE_CHECKING:
    from vmoor.ports import Files  # 30 ms that the first child need not wait for

_LOAD, _RENDER = "vmoor.config.load", "vmoor.adapters.templates"
_SERVICES = "vmoor.config.services"
NAMES = ("proxy.env", "mesh.yaml")
# A template in /etc/vmoor/templates replaces the shipped one of the same name.
FOLDERS = ("/etc/vmoor/templates", "/usr/share/vmoor/templates")
TIMEOUT_S = 20.0  # an interpreter with cold caches on a busy one-core VM takes some seconds


@dataclass(frozen=True)
class Read:
    """What the configuration's files say: a validated document, or problems."""

    document: Mapping[str, Any]
    problems: tuple[str, ...] = ()
    none: bool = False  # there are no files at all


class Reader:
    """Validates the files under `root` (normally /etc/vmoor)."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._early: Optional[tuple[str, run.Running]] = None

    def start(self) -> None:
        """The next answer is that of a child that starts now, if the files stay as they are."""
        with contextlib.suppress(LocalFault):  # the call itself will tell
            self._early = stamp(self._root), self._child()

    def __call__(self) -> Read:
        """Raises LocalFault."""
        early, self._early = self._early, None
        valid = early is not None and early[0] == stamp(self._root)
        child = early[1] if early and valid else self._child()
        return _read(_LOAD, child)

    def _child(self) -> run.Running:
        return _child(_LOAD, self._root)


def read_services(path: str) -> Read:
    """Validates a file of services. Raises LocalFault."""
    return _read(_SERVICES, _child(_SERVICES, path))


def judge_services(name: str, content: bytes) -> Read:
    """The same of a document that is here. Raises LocalFault."""
    return _read(_SERVICES, _child(_SERVICES, "-", name), content)


def _read(module: str, child: run.Running, given: bytes = b"") -> Read:
    answer = _answer(module, child, given, ok=(0, EXIT_CONFIG))
    return Read(
        document=answer.get("document", {}),
        problems=tuple(answer.get("problems", ())),
        none=bool(answer.get("none")),
    )


def stamp(root: str) -> str:
    """Differs when a file of the tree was changed, added or removed, and for another vmoor."""
    folder = Path(root)
    return _digest(_seen(folder / "vmoor.yaml", folder / "conf.d", *folder.glob("conf.d/*.yaml")))


class Renderer:
    """Renders the proxy's files, and keeps the last ones at `kept`: they hold no secret.

    A start with the same parameters and templates then needs no child.
    """

    def __init__(self, files: Files, kept: str) -> None:
        self._files, self._kept = files, kept
        self._early: Optional[run.Running] = None

    def prepare(self) -> None:
        """Start the child of the first rendering ever: it loads jinja2 while Vault is asked."""
        if not self._files.read(self._kept):
            self._early = _child(_RENDER)

    def __call__(self, parameters: Mapping[str, Any]) -> Mapping[str, str]:
        """Name to text. Raises LocalFault."""
        text = json.dumps(parameters, sort_keys=True)
        paths = (Path(folder, f"{name}.j2") for folder in FOLDERS for name in NAMES)
        key = _digest(text, _seen(*paths))
        kept = record.parsed(self._files.read(self._kept))
        if kept.get("key") == key:
            return dict(kept["texts"])
        early, self._early = self._early, None
        child = early if early and not early.ended() else _child(_RENDER)
        answer = _answer(_RENDER, child, text.encode(), ok=(0,))
        texts = {str(name): str(content) for name, content in answer.items()}
        note = json.dumps({"key": key, "texts": texts})
        self._files.write(self._kept, note.encode(), 0o600)
        return texts


def _seen(*paths: Path) -> list[tuple[str, int, int]]:
    seen = []
    for path in sorted(paths):
        try:
            state = path.stat()
        except OSError as e:
            seen.append((str(path), e.errno or 0, 0))
        else:
            seen.append((str(path), state.st_mtime_ns, state.st_ctime_ns))
    return seen


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr((__version__, *parts)).encode()).hexdigest()


def _child(module: str, *arguments: str) -> run.Running:
    return run.Running([sys.executable, "-I", "-m", module, *arguments])


def _answer(
    module: str, child: run.Running, given: bytes, *, ok: tuple[int, ...]
) -> dict[str, Any]:
    done = child.finish(given, TIMEOUT_S)
    if done.code not in ok:
        raise LocalFault(f"cannot run {module}: {quoted(done.stderr or done.code)}")
    try:
        answer = json.loads(done.stdout)
    except ValueError as e:
        raise LocalFault(f"cannot read the answer of {module}: {quoted(done.stdout)}") from e
    if not isinstance(answer, dict):
        raise LocalFault(f"cannot read the answer of {module}: {quoted(done.stdout)}")
    return answer
