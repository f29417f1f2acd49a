"""Which unit files carry a marker: a look through systemd's load path, no question to systemd.

Read are NAME.service and NAME.service.d/*.conf as systemd.unit(5) orders them: a file of an
earlier folder hides one of the same name, a link to /dev/null masks. Not followed: drop-ins of
prefixes and of templates. A marker in a template is told as a problem; a drop-in of the
instance, NAME@x.service.d, works.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vmoor.config.marker import KEY, Text

FOLDERS = tuple(
    f"{root}/systemd/system" for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
)
SIZE_LIMIT = 64 << 10  # bytes; what is beyond is not read
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.service")
_MARK = KEY.encode()


def read(folders: Sequence[str] = FOLDERS) -> Mapping[str, Sequence[Text]]:
    """By unit name, the files that mention the marker. What cannot be read has none."""
    files: dict[str, os.DirEntry[str]] = {}  # the unit's own file
    dropins: dict[str, dict[str, str]] = {}
    for folder in folders:
        for entry in _entries(folder):
            if _UNIT.fullmatch(entry.name):
                files.setdefault(entry.name, entry)
            elif entry.name.endswith(".service.d") and _UNIT.fullmatch(entry.name[:-2]):
                parts = dropins.setdefault(entry.name[:-2], {})
                for part in _entries(entry.path):
                    if part.name.endswith(".conf"):
                        parts.setdefault(part.name, part.path)
    paths = {name: [entry.path] for name, entry in files.items() if not _is_alias(entry)}
    for name, parts in dropins.items():
        paths.setdefault(name, []).extend(parts[part] for part in sorted(parts))
    found = {name: tuple(_marked(several)) for name, several in paths.items()}
    return {name: texts for name, texts in found.items() if texts}


def _entries(folder: str) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return tuple(entries)
    except OSError:
        return ()


def _is_alias(entry: os.DirEntry[str]) -> bool:
    """A link to a file of another name is another name of that unit, or masks (/dev/null)."""
    return entry.is_symlink() and Path(entry.path).resolve().name != entry.name


def _marked(paths: Sequence[str]) -> Iterator[Text]:
    for path in paths:
        try:
            # Nothing here may wait, not even a pipe.
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            content = os.read(file, SIZE_LIMIT)
        except OSError:
            continue
        finally:
            os.close(file)
        if _MARK in content:
            yield Text(path, content.decode("utf-8", "replace"))
