"""Whether root alone can have put a file where it is.

The hook runs such files as root, so one directory on the way that somebody else may write to is
as bad as a writable file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_LINKS = 40  # as many symbolic links as the kernel follows (MAXSYMLINKS)


class Untrusted(Exception):
    """The message names the path and who could change it."""


def check(path: str) -> None:
    """Every directory and link on the way, and the file; Untrusted also if it is not there."""
    if not path.startswith("/"):
        raise Untrusted(f"{path} is not an absolute path")
    done, ahead, links = Path("/"), _names(path), 0
    _one(done)
    while ahead:
        name = ahead.pop(0)
        here = done.parent if name == ".." else done / name
        if not stat.S_ISLNK(_one(here).st_mode):
            done = here
            continue
        links += 1
        if links > _LINKS:
            raise Untrusted(f"{path} has too many symbolic links")
        target = os.fspath(here.readlink())
        done = Path("/") if target.startswith("/") else done
        ahead = _names(target) + ahead


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _one(path: Path) -> os.stat_result:
    try:
        found = path.lstat()
    except OSError as e:
        raise Untrusted(f"{path}: {e.strerror}") from e
    if found.st_uid != 0:
        raise Untrusted(f"{path} belongs to uid {found.st_uid}, not to root")
    # A link's mode is always 0777 and means nothing.
    writable = stat.S_IWGRP | stat.S_IWOTH
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & writable:
        mode = stat.S_IMODE(found.st_mode)
        raise Untrusted(f"{path} is writable by others than root (mode {mode:o})")
    return found
