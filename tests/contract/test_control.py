"""The control socket, by real sockets: who may ask, and what bounds an asker has."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from vmoor.adapters import control
from vmoor.errors import LocalFault, Rejected

from tests.rig import process


def obey(request: Mapping[str, Any]) -> str:
    if request["service"] == "wbe":
        raise Rejected("cannot drain wbe: no such service", remedy="vmoor status")
    return f"{request['verb']} {request['service']}"


def _ready(path: str) -> bool:
    try:
        return stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    except FileNotFoundError:
        return False


@pytest.fixture
def path(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "admin.sock")
    Path(path).touch(0o644)  # what an agent that is no more left
    made = control.ControlSocket(obey, path)
    threading.Thread(target=made.run, args=(threading.Event(),), daemon=True).start()
    process.wait_until(lambda: _ready(path), 5, "the socket")
    yield path


def test_an_answer_and_a_refusal_come_back(path: str) -> None:
    """With the remedy, one asker after the other."""
    for _ in range(3):
        assert control.ask({"verb": "drain", "service": "web"}, path) == "drain web"
    with pytest.raises(LocalFault, match="no such service") as e:
        control.ask({"verb": "drain", "service": "wbe"}, path)
    assert e.value.remedy == "vmoor status"


@pytest.mark.parametrize("said", [b"\n", b"[]\n", b"no\n", b"x" * 5000, b"{}"], ids=range(5))
def test_who_says_something_else_harms_nobody(path: str, said: bytes) -> None:
    """Not JSON, no mapping, too long, no end: the next asker is answered."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.sendall(said)
        link.shutdown(socket.SHUT_WR)
        link.settimeout(10)
        try:
            got = link.recv(100)
        except ConnectionResetError:
            got = b""
        assert b"done" not in got
    assert control.ask({"verb": "drain", "service": "web"}, path) == "drain web"


def test_who_says_nothing_is_sent_away(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bounded time, so that one hanging asker keeps nobody out."""
    monkeypatch.setattr(control, "TIME_S", 0.3)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.settimeout(5)
        assert link.recv(100) == b""


def test_it_is_the_agents_own_and_roots(path: str) -> None:
    """Mode 0600; only a socket stands there."""
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_without_an_agent_the_remedy_is_told(tmp_path: Path) -> None:
    """Nobody listens: what to look at."""
    with pytest.raises(LocalFault, match="it does not run") as e:
        control.ask({}, str(tmp_path / "none"))
    assert e.value.remedy == "systemctl status vmoor"
