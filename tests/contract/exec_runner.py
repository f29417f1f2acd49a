"""The runner of the operator's commands as a real process, asked by the agent's own client.

It runs as root here and as vmoor-exec on a VM.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vmoor.adapters import execs
from vmoor.model.health import Probe
from vmoor.model.service import ExecProbe

from tests.unit.config.folders import good, write

AGENT = Path(__file__).parents[2] / "agent"
PROGRAM = "import sys; from pathlib import Path; from vmoor.execunit.runner import main; "
TIMEOUT = 0.5
PATIENCE = 10.0


class Runner:
    """A runner, its configuration and its socket, below a folder that is root's alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, str(folder / "socket")
        self.pid = 0

    def configure(self, *commands: list[str], timeout: str = "500ms") -> None:
        checks = [{"exec": command, "timeout": timeout} for command in commands]
        write(self.folder, **{"10": good(services={"web": {"port": 1, "checks": checks}})})

    def sh(self, script: str) -> Probe:
        """One look, with this script as the only check."""
        self.configure(["/bin/sh", "-c", script])
        return self.look()

    def look(self, check: int = 0, timeout: float = TIMEOUT) -> Probe:
        return execs.look(ExecProbe("web", check), timeout, self.path)

    def ask(self, request: bytes) -> dict[str, Any]:
        """The answer to any bytes."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE)
            link.connect(self.path)
            link.sendall(request)
            with link.makefile("rb") as file:
                answer: dict[str, Any] = json.loads(file.readline())
        return answer


@contextmanager
def running(idle: float = 600.0) -> Iterator[tuple[Runner, subprocess.Popen[bytes]]]:
    # /tmp is everybody's, so nothing below it is trusted.
    with tempfile.TemporaryDirectory(dir="/run") as folder, socket.socket(socket.AF_UNIX) as own:
        made = Runner(Path(folder))
        own.bind(made.path)
        own.listen()
        program = f"{PROGRAM}sys.exit(main(Path({folder!r}), {own.fileno()}, {idle}))"
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(AGENT), "SECRET": "the agent's"},
            pass_fds=[own.fileno()],
        )
        made.pid = process.pid
        try:
            yield made, process
        finally:
            process.kill()
            process.wait()
