"""The main process of the proxy's unit, with a pilot-agent that behaves badly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.rig.process import wait_until

Launch = Callable[[str], "subprocess.Popen[bytes]"]
ROOT = Path(__file__).resolve().parents[2]
LAUNCH = """
import sys
from vmoor.proxyunit.environment import Environment
from vmoor.proxyunit.launcher import Launcher
found = Environment(variables={}, pilot_agent=sys.argv[1], envoy="")
raise SystemExit(Launcher(found, "").run())
"""


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """The launcher of a pilot-agent that is this shell text, after it has started an Envoy."""
    made: list[subprocess.Popen[bytes]] = []

    def begin(text: str) -> subprocess.Popen[bytes]:
        agent = tmp_path / "pilot-agent"
        agent.write_text(f"#!/bin/sh\n/bin/sleep 300 &\necho $! > envoy.new\n"
                         f"mv envoy.new envoy\n{text}\n")  # fmt: skip
        agent.chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent")}
        argv = [sys.executable, "-c", LAUNCH, str(agent)]
        made.append(subprocess.Popen(argv, cwd=tmp_path, env=environment))
        wait_until((tmp_path / "envoy").exists, 10, "an Envoy")
        return made[-1]

    yield begin
    for process in made:
        process.kill()
        process.wait()


def lives(tmp_path: Path) -> bool:
    status = Path("/proc", (tmp_path / "envoy").read_text().strip(), "status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_envoy_ends_before_the_launcher(tmp_path: Path, launch: Launch) -> None:
    """systemd removes the capture rules after it: what Envoy still served would hang for ever."""
    assert launch("exit 7").wait(20) == 7
    assert not lives(tmp_path)


def test_the_watchdog_leaves_no_envoy(tmp_path: Path, launch: Launch) -> None:
    """SIGABRT comes when Envoy hangs: it goes at once, and before the launcher."""
    launcher = launch("exec /bin/sleep 300")
    launcher.send_signal(signal.SIGABRT)
    assert launcher.wait(20) == 128 + signal.SIGKILL
    assert not lives(tmp_path)
