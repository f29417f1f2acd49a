"""Commands run to an end, whatever they do, with nothing of our environment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmoor.adapters import run
from vmoor.errors import LocalFault


def _command_lines() -> Iterator[bytes]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes()


def test_answer_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input, output, errors, exit code; the environment is a fixed one."""
    monkeypatch.setenv("VMOOR_CANARY", "leak")
    done = run.run(
        ["sh", "-c", "cat; env >&2; exit 3"], input="x" * 300_000, timeout=10
    )  # fmt: skip
    assert (done.code, len(done.stdout)) == (3, 300_000)
    assert "leak" not in done.stderr


def test_late_commands_are_killed_with_their_children() -> None:
    """The deadline holds though a grandchild keeps the pipes open."""
    began = time.monotonic()
    with pytest.raises(LocalFault, match="not done after 0.3 s"):
        run.run(["sh", "-c", "sleep 98765 & wait"], timeout=0.3)
    assert time.monotonic() - began < 5
    assert not [line for line in _command_lines() if b"98765" in line and b"sleep" in line]


def test_endless_output_is_refused() -> None:
    """At the limit, not when memory is gone."""
    with pytest.raises(LocalFault, match="over 8 MiB"):
        run.run(["yes"], timeout=20)


def test_output_may_be_taken_as_it_comes() -> None:
    """Before the command has ended; it is not kept."""
    pieces: list[tuple[float, bytes]] = []
    began = time.monotonic()
    done = run.run(
        ["sh", "-c", "echo one; sleep 1; echo two"], timeout=10,
        heed=lambda piece: pieces.append((time.monotonic() - began, piece)),
    )  # fmt: skip
    assert b"".join(piece for _, piece in pieces) == b"one\ntwo\n"
    assert pieces[0][0] < 0.9
    assert (done.code, done.stdout) == (0, "")


def test_missing_command_is_told() -> None:
    """As a fault of this machine."""
    with pytest.raises(LocalFault, match="cannot run no-such-command: No such file"):
        run.run(["no-such-command"], timeout=1)
