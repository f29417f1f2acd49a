"""The order of the system calls is what a power cut relies on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vmoor import errors
from vmoor.adapters.files import LocalFiles


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of os's calls in order; the real ones are made."""
    calls: list[str] = []

    def spy(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            on_folder = name == "open" and bool(args[1] & os.O_DIRECTORY)
            calls.append("open folder" if on_folder else name)
            return real(*args, **kwargs)

        return call

    for name in ("open", "write", "fchmod", "fsync", "rename", "unlink"):
        monkeypatch.setattr(os, name, spy(name))
    return calls


def test_durable(tmp_path: Path, traced: list[str]) -> None:
    """Content and mode are on the disk before the name is, and the name before the return."""
    LocalFiles().write(str(tmp_path / "f"), b"x", 0o600, durable=True)
    assert traced == ["open", "write", "fchmod", "fsync", "rename", "open folder", "fsync"]


def test_not_durable(tmp_path: Path, traced: list[str]) -> None:
    """Without `durable` the disk is not waited for."""
    LocalFiles().write(str(tmp_path / "f"), b"x", 0o600)
    assert traced == ["open", "write", "fchmod", "rename"]


def test_mode_and_content(tmp_path: Path) -> None:
    """A file has its mode whatever the umask, and no other file is left beside it."""
    path = tmp_path / "f"
    LocalFiles().write(str(path), b"one", 0o644)
    LocalFiles().write(str(path), b"two", 0o640)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails midway leaves the old content and no temp file."""
    path = tmp_path / "f"
    LocalFiles().write(str(path), b"old", 0o600)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(errors.LocalFault, match=f"cannot write {path}: no space left on device"):
        LocalFiles().write(str(path), b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link that someone left under the temp file's name is not written through."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "f.new").symlink_to(victim)
    with pytest.raises(errors.LocalFault):
        LocalFiles().write(str(tmp_path / "f"), b"x", 0o600)
    assert victim.read_text() == "kept"


def test_read(tmp_path: Path) -> None:
    """A missing file is None; anything else that hinders is told with the path."""
    files = LocalFiles()
    assert files.read(str(tmp_path / "none")) is None
    with pytest.raises(errors.LocalFault, match="is a directory"):
        files.read(str(tmp_path))
    (tmp_path / "big").write_bytes(b"x" * (2 << 20))
    with pytest.raises(errors.LocalFault, match="longer than"):
        files.read(str(tmp_path / "big"))


def test_remove(tmp_path: Path) -> None:
    """Removing what is not there is fine."""
    path = tmp_path / "f"
    path.write_text("x")
    LocalFiles().remove(str(path))
    LocalFiles().remove(str(path))
    assert not path.exists()


def test_a_pipe_in_a_files_place_does_not_block(tmp_path: Path) -> None:
    """Whoever plants a FIFO does not stop the loop that reads there."""
    path = tmp_path / "proxy.env"
    os.mkfifo(path)
    with pytest.raises(errors.LocalFault, match="not a file"):
        LocalFiles().read(str(path))
