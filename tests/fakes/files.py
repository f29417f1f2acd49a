"""A disk: what is on it survives a kill, what is about to be written does not."""

from __future__ import annotations

from typing import Optional

from vmoor import errors


class Killed(BaseException):
    """The process is no more. A BaseException: nothing may catch it."""


class FakeFiles:
    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.durable: set[str] = set()  # paths whose last write was synced
        self.unreadable: set[str] = set()
        self.full = False
        self.kill_before_write: Optional[str] = None  # part of a path or of a content

    def read(self, path: str) -> Optional[bytes]:
        if path in self.unreadable:
            raise errors.LocalFault(f"cannot read {path}: permission denied")
        return self.content.get(path)

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        mark = self.kill_before_write
        if mark is not None and (mark in path or mark.encode() in content):
            raise Killed
        if self.full:
            raise errors.LocalFault(f"cannot write {path}: no space left on device")
        self.content[path] = content
        self.modes[path] = mode
        (self.durable.add if durable else self.durable.discard)(path)

    def remove(self, path: str) -> None:
        self.content.pop(path, None)
