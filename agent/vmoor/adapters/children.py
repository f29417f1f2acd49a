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
    seen = []
    for path in (folder / "vmoor.yaml", folder / "conf.d", *sorted(folder.glob("conf.d/*.yaml"))):
        try:
            state = path.stat()
        except OSError as e:
            seen.append((str(path), e.errno, 0))
        else:
            seen.append((str(path), state.st_mtime_ns, state.st_ctime_ns))
    return hashlib.sha256(repr((__version__, seen)).encode()).hexdigest()


def render(parameters: Mapping[str, Any]) -> Mapping[str, str]:
    """The proxy's files, name to text, from the templates. Raises LocalFault."""
    files = _ask("vmoor.adapters.templates", [], json.dumps(parameters), ok=(0,))
    return {str(name): str(text) for name, text in files.items()}


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
