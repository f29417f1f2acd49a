"""Work for libraries that the idle daemon must not carry, done in a child that ends.

jsonschema and PyYAML (validation) and jinja2 (rendering) cost 15 MB together; the daemon needs
them for a moment at start and on SIGHUP.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmoor import __version__
from vmoor.adapters import run
from vmoor.errors import EXIT_CONFIG, LocalFault, quoted
from vmoor.model import record
from vmoor.ports import Files

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


def read_configuration(root: str) -> Read:
    """Validate the files under `root` (normally /etc/vmoor). Raises LocalFault."""
    answer = _ask("vmoor.config.load", [root], "", ok=(0, EXIT_CONFIG))
    return Read(
        document=answer.get("document", {}),
        problems=tuple(answer.get("problems", ())),
        none=bool(answer.get("none")),
    )


def stamp(root: str) -> str:
    """Differs when a file of the tree was changed, added or removed, and for another vmoor."""
    folder = Path(root)
    return _digest(_seen(folder / "vmoor.yaml", folder / "conf.d", *folder.glob("conf.d/*.yaml")))


@dataclass(frozen=True)
class Renderer:
    """Renders the proxy's files, and keeps the last ones at `kept`: they hold no secret.

    A start with the same parameters and templates then needs no child, 0.15 s of a VM's start.
    """

    files: Files
    kept: str

    def __call__(self, parameters: Mapping[str, Any]) -> Mapping[str, str]:
        """Name to text. Raises LocalFault."""
        text = json.dumps(parameters, sort_keys=True)
        paths = (Path(folder, f"{name}.j2") for folder in FOLDERS for name in NAMES)
        key = _digest(text, _seen(*paths))
        kept = record.parsed(self.files.read(self.kept))
        if kept.get("key") == key:
            return dict(kept["texts"])
        answer = _ask("vmoor.adapters.templates", [], text, ok=(0,))
        texts = {str(name): str(content) for name, content in answer.items()}
        note = json.dumps({"key": key, "texts": texts})
        self.files.write(self.kept, note.encode(), 0o600)
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


def _ask(module: str, arguments: list[str], text: str, *, ok: tuple[int, ...]) -> dict[str, Any]:
    done = run.run([sys.executable, "-I", "-m", module, *arguments], input=text, timeout=TIMEOUT_S)
    if done.code not in ok:
        raise LocalFault(f"cannot run {module}: {quoted(done.stderr or done.code)}")
    try:
        answer = json.loads(done.stdout)
    except ValueError as e:
        raise LocalFault(f"cannot read the answer of {module}: {quoted(done.stdout)}") from e
    if not isinstance(answer, dict):
        raise LocalFault(f"cannot read the answer of {module}: {quoted(done.stdout)}")
    return answer
