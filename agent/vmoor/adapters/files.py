"""Files, written whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Optional

from vmoor import errors

SIZE_LIMIT = 1 << 20  # bytes; nothing that the agent reads is nearly as long


class LocalFiles:
    """Each path has one writer: two at once would share the temp file's name."""

    def read(self, path: str) -> Optional[bytes]:
        with _translated("read", path):
            try:
                with open(path, "rb", opener=_opener) as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise errors.LocalFault(f"cannot read {path}: not a file")
                    content = file.read(SIZE_LIMIT + 1)
            except FileNotFoundError:
                return None
        if len(content) > SIZE_LIMIT:
            raise errors.LocalFault(f"cannot read {path}: longer than {SIZE_LIMIT} bytes")
        return content

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        temp = f"{path}.new"
        with _translated("write", path):
            try:
                _fill(temp, content, mode, durable=durable)
                os.rename(temp, path)  # noqa: PTH104 - paths are str at this port
            except BaseException:
                with suppress(OSError):
                    os.unlink(temp)  # noqa: PTH108
                raise
            if durable:
                _sync_folder(str(Path(path).parent))

    def remove(self, path: str) -> None:
        with _translated("remove", path), suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe without a writer would block for ever


def _fill(path: str, content: bytes, mode: int, *, durable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        os.fchmod(fd, mode)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(verb: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        reason = (e.strerror or type(e).__name__).lower()
        raise errors.LocalFault(f"cannot {verb} {path}: {reason}") from e
