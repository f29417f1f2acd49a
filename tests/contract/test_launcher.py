"""The main process of the proxy's unit, with a pilot-agent that behaves badly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = """
import sys
from vmoor.proxyunit.environment import Environment
from vmoor.proxyunit.launcher import Launcher
found = Environment(variables={}, pilot_agent=sys.argv[1], envoy="")
raise SystemExit(Launcher(found, "").run())
"""


@pytest.mark.timeout(30)
def test_envoy_ends_before_the_launcher(tmp_path: Path) -> None:
    """systemd removes the capture rules after it: what Envoy still served would hang for ever."""
    agent = tmp_path / "pilot-agent"
    agent.write_text("#!/bin/sh\n/bin/sleep 300 &\necho $! > envoy.pid\nexit 7\n")
    agent.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent")}
    argv = [sys.executable, "-c", LAUNCH, str(agent)]
    ended = subprocess.run(argv, cwd=tmp_path, env=environment, timeout=20, check=False)
    assert ended.returncode == 7
    pid = int((tmp_path / "envoy.pid").read_text())
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()
