"""Documents of services that others write, as they are now."""

from __future__ import annotations

import shlex
from pathlib import Path

from vmoor.adapters import children
from vmoor.config.settings import FileSource
from vmoor.ports import Look

CHECK = "vmoor check --services-file"


def file(source: FileSource) -> Look:
    """Never raises: a file that is not there has a version, too."""
    path = source.path
    remedy = f"mend it, see {CHECK} {shlex.quote(path)}"
    return Look(_stamp(path), lambda: children.read_services(path), remedy)


def _stamp(path: str) -> object:
    """Differs when the file was written, replaced or removed."""
    try:
        seen = Path(path).stat()
    except OSError as e:
        return e.errno
    return seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size, seen.st_ino
