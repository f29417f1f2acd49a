"""Documents of services that others write, as they are now."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from vmoor import execunit
from vmoor.adapters import children, execs
from vmoor.config.settings import ExecSource, FileSource
from vmoor.ports import Look

CHECK = "vmoor check --services-file"


def file(source: FileSource) -> Look:
    """Never raises: a file that is not there has a version, too."""
    path = source.path
    remedy = f"mend it, see {CHECK} {shlex.quote(path)}"
    return Look(_stamp(path), lambda: children.read_services(path), remedy)


def printed(source: ExecSource, path: str = execunit.SOCKET) -> Look:
    """Runs the command. Raises Unavailable when it fails."""
    content = execs.printed(source, path)
    name = f"output of {source.command[0]}"
    return Look(
        hashlib.sha256(content).digest(),
        lambda: children.judge_services(name, content),
        f"mend it, see {execs.by_hand(source)} | {CHECK} -",
    )


def _stamp(path: str) -> object:
    """Differs when the file was written, replaced or removed."""
    try:
        seen = Path(path).stat()
    except OSError as e:
        return e.errno
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino
