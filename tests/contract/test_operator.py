"""The command line on an operator's own machine, which has less than a VM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = ("jeepney", "systemd", "psutil", "h2", "grpc", "prometheus_client")
LAUNCH = f"""
import sys
for name in {WITHOUT}:
    sys.modules[name] = None
from vmoor.cli.main import vmoor
vmoor(sys.argv[1:], prog_name="vmoor")
"""


@pytest.mark.parametrize(
    "command", ["", "check", "fleet", "fleet confirm", "status", "drain", "reaper", "admin",
                "admin publish", "admin user-data", "admin manifests"],
)  # fmt: skip
def test_it_needs_only_what_readme_names(command: str) -> None:
    """Every help is there, without the libraries of the agent."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent")}
    argv = [sys.executable, "-c", LAUNCH, *command.split(), "--help"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: vmoor")
