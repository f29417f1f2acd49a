"""Processes by their pid files, without privilege.

One thread (`run`) has a pidfd of each process: it becomes readable when the process ends
(pidfd_open(2), Linux 5.3). That takes neither a right over the process nor sight of it in /proc.
Only the files themselves are looked at each second: pid files are renamed, linked and removed in
too many ways to follow.
"""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Optional

from vmoor.model.process import SIZE_LIMIT, ProcessState, pid_in
from vmoor.runtime.cell import Cell

LOOK_S = 1.0
# Each takes a descriptor of the 1024 that the daemon has, and that select(2) elsewhere can take.
MOST = 500
_BEYOND = ProcessState(words=f"not looked at, there are more than {MOST} pid files")


class Processes:
    """`states` holds, by path, only files that were read at least once."""

    def __init__(self) -> None:
        self.states: Cell[Mapping[str, ProcessState]] = Cell({})
        self._paths: Sequence[str] = ()
        self._wake_out, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def watch(self, paths: Sequence[str]) -> None:
        fresh = sorted(set(paths))
        if fresh != self._paths:
            self._paths = fresh
            self.wake()

    def wake(self) -> None:
        """Let the reading thread look at once at what it watches and whether it shall stop."""
        with suppress(BlockingIOError):  # full: it will wake
            os.write(self._wake, b".")

    def run(self, stop: threading.Event) -> None:
        poll = select.poll()
        poll.register(self._wake_out, select.POLLIN)
        files: dict[str, _PidFile] = {}
        due = 0.0
        try:
            while not stop.is_set():
                paths = self._paths
                looked: Collection[_PidFile] = _only(files, paths[:MOST], poll)
                if time.monotonic() >= due:
                    looked, due = files.values(), time.monotonic() + LOOK_S
                for file in looked:
                    file.look()
                states = {path: file.state for path, file in files.items()}
                self.states.set({**states, **dict.fromkeys(paths[MOST:], _BEYOND)})
                wait = max(0.0, due - time.monotonic()) * 1000 if files else None
                ended = {descriptor for descriptor, _ in poll.poll(wait)}
                if self._wake_out in ended:
                    os.read(self._wake_out, 4096)
                for file in files.values():
                    if file.descriptor in ended:
                        file.died()
        finally:
            _only(files, (), poll)


class _PidFile:
    """One file, and the process that it names."""

    def __init__(self, path: str, poll: select.poll) -> None:
        self.state = ProcessState()
        self.descriptor: Optional[int] = None  # of the process while it lives
        self._path = path
        self._poll = poll
        self._stamp: Optional[tuple[int, ...]] = None

    def look(self) -> None:
        """Read it if it is another one than at the last look."""
        try:
            seen = os.stat(self._path)  # noqa: PTH116 - each second, for each file
            stamp = (seen.st_dev, seen.st_ino, seen.st_mtime_ns, seen.st_size)
            if stamp == self._stamp:
                return
            pid = pid_in(self._read())
            if pid is None:
                self.take(ProcessState(words="is not one pid"))
            elif pid != self.state.pid or self.descriptor is None:
                self._follow(pid)
            self._stamp = stamp
        except (OSError, ValueError) as e:  # ValueError: a path that no file can have
            words = e.strerror if isinstance(e, OSError) else None
            self.take(ProcessState(words=(words or "cannot be read").lower()))
            self._stamp = None

    def died(self) -> None:
        """The pid is not opened again, by then it may be another's, unless the file is written."""
        self.take(ProcessState(self.state.pid))
        self.look()

    def take(self, state: ProcessState) -> None:
        """What is known now; of the process that was followed until now nothing is kept."""
        self.state = state
        if self.descriptor is not None:
            self._poll.unregister(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = None

    def _read(self) -> bytes:
        with open(self._path, "rb", buffering=0, opener=_opener) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return file.read(SIZE_LIMIT + 1) if regular else b""

    def _follow(self, pid: int) -> None:
        self.take(ProcessState(pid))
        with suppress(ProcessLookupError):
            self.descriptor = os.pidfd_open(pid)
            self._poll.register(self.descriptor, select.POLLIN)
            zombie = select.select([self.descriptor], [], [], 0)[0]
            self.state = ProcessState(pid, alive=not zombie)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would block for ever


def _only(
    files: dict[str, _PidFile], paths: Sequence[str], poll: select.poll
) -> Sequence[_PidFile]:
    """Follow exactly these; those that are new."""
    for path in files.keys() - set(paths):
        files.pop(path).take(ProcessState())
    fresh = [path for path in paths if path not in files]
    files.update({path: _PidFile(path, poll) for path in fresh})
    return [files[path] for path in fresh]
