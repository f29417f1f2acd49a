"""What a rig has taken from the machine, written down so that another one can give it back.

A rig that was killed can't clean up after itself. So each keeps a file in /run/vmoor-rig, one
JSON line per process, mount and directory, the owner first; the next rig to start removes what
belongs to an owner that no longer lives. A pid alone is never believed: pids are used again, so
the start time is kept beside it.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

_ROOT = Path("/run/vmoor-rig")
_NAMESPACES = Path("/run/netns")
_count = itertools.count()


def new_rig_id() -> str:
    """Short, and different for each rig that lives on this machine."""
    return f"{os.getpid():x}{'' if (n := next(_count)) == 0 else f'x{n}'}"


def start_time(pid: int) -> Optional[int]:
    """Clock ticks between boot and the process's start (proc(5), field 22); None if it's gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


class Ledger:
    """One rig's file. Records are only ever added; close() removes the file."""

    def __init__(self, rig_id: str) -> None:
        self.rig_id = rig_id
        self._path = _ROOT / rig_id
        with _locked():  # a file without its owner's line would be swept
            self._record("owner", os.getpid(), start_time(os.getpid()))

    def process(self, pid: int) -> None:
        self._record("process", pid, start_time(pid))

    def mount(self, path: Path) -> None:
        self._record("mount", str(path))

    def directory(self, path: Path) -> None:
        """A directory to be removed with the rig, whatever is in it."""
        self._record("directory", str(path))

    def close(self) -> None:
        """Everything recorded has been given back."""
        self._path.unlink(missing_ok=True)

    def _record(self, *record: object) -> None:
        with self._path.open("a") as file:  # one short write: no lines of two threads mix
            file.write(json.dumps(record) + "\n")


@contextmanager
def _locked() -> Iterator[None]:
    _ROOT.mkdir(mode=0o700, exist_ok=True)
    with (_ROOT / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> list[str]:
    """Remove what dead rigs left behind; the ids of those rigs."""
    swept = []
    with _locked():
        for path in _ROOT.glob("[!.]*"):
            # The last line may be cut short: the rig died while writing it.
            lines = path.read_text().splitlines()
            records = [json.loads(line) for line in lines if line.endswith("]")]
            if not any(kind == "owner" and _lives(*rest) for kind, *rest in records):
                _remove(path.name, records)
                path.unlink()
                swept.append(path.name)
    return swept


def _lives(pid: int, started: Optional[int]) -> bool:
    return started is not None and start_time(pid) == started


def _remove(rig_id: str, records: list[list[object]]) -> None:
    """Newest first: processes before the mounts they use, mounts before directories under them."""
    for kind in ("process", "mount", "directory"):
        for _, *rest in reversed([record for record in records if record[0] == kind]):
            if kind == "process" and _lives(*rest):  # type: ignore[arg-type]
                os.kill(rest[0], signal.SIGKILL)  # type: ignore[arg-type]
            elif kind == "mount" and os.path.ismount(str(rest[0])):
                subprocess.run(["umount", "--lazy", "--recursive", str(rest[0])], check=True)
            elif kind == "directory":
                shutil.rmtree(str(rest[0]), ignore_errors=True)
    for namespace in [f"vmoor-{rig_id}", *(p.name for p in _NAMESPACES.glob(f"vmoor-{rig_id}-*"))]:
        if (_NAMESPACES / namespace).exists():
            subprocess.run(["ip", "netns", "delete", namespace], check=True)
