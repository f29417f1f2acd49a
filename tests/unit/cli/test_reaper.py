"""`vmoor reaper`: what is wrong with its options is told before anything else happens."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from vmoor.cli.reaper import reaper
from vmoor.reaper import daemon

from tests.rig.certs import Authority

SERVER = "https://198.18.0.1:6443"


@pytest.fixture(autouse=True)
def _no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)


def run(server: str, ca: Path, token: Path) -> Result:
    options = [f"--server={server}", f"--ca={ca}", f"--token-file={token}"]
    return CliRunner().invoke(reaper, options)


@pytest.mark.parametrize("server", ["198.18.0.1:6443", "http://198.18.0.1", "https://", "x y"])
def test_a_wrong_server_is_a_wrong_option(tmp_path: Path, server: str) -> None:
    """Exit code 2, at which the unit is not started again."""
    done = run(server, tmp_path / "ca", tmp_path / "token")
    assert done.exit_code == 2
    assert "--server" in done.output
    assert "is not a URL such as https://" in done.output


def test_files_that_are_not_there_are_told_with_a_line_each(tmp_path: Path) -> None:
    """Exit code 1: they may come later, and the unit is started again."""
    done = run(SERVER, tmp_path / "ca", tmp_path / "token")
    assert done.exit_code == 1
    first, second = done.output.splitlines()
    assert first.startswith(f"cannot read the CA certificates of {tmp_path}/ca: no such file")
    assert "Fix: --ca must be PEM certificates, readable by user " in first
    assert second.startswith(f"cannot read the token {tmp_path}/token: no such file")
    assert "Fix: --token-file must hold a token, readable by user " in second


def test_with_all_that_it_needs_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exit code is the reaper's."""
    (tmp_path / "token").write_text("t\n")
    started: list[daemon.Options] = []
    monkeypatch.setattr(daemon, "main", lambda options: started.append(options) or 7)
    done = run(SERVER, Authority(tmp_path).path, tmp_path / "token")
    assert (done.exit_code, done.output) == (7, "")
    assert [options.server for options in started] == [SERVER]


def test_outside_of_a_pod_it_needs_a_server() -> None:
    """Which options, in one line."""
    done = CliRunner().invoke(reaper, [])
    assert done.exit_code == 2
    assert "--server, --ca and --token-file are needed" in done.output
