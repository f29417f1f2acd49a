"""Processes of the rig: started inside a network namespace, logged to a file, ended by pid.

No process may outlive the rig, however it ends: every one gets SIGKILL from the kernel when
the rig's process dies (PR_SET_PDEATHSIG). The kernel means the *thread* that forked, so all
are started from one thread that lives as long as the rig's process.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional, TypeVar

from tests.rig.errors import RigError
from tests.rig.ledger import Ledger

T = TypeVar("T")

_SPAWNER = ThreadPoolExecutor(1, "rig-spawner")
_LOG_TAIL = 2000  # characters of a log that an error shows: enough for a Go panic's first screen


def in_namespace(netns: Optional[str], argv: Sequence[str]) -> list[str]:
    """The command that becomes argv, with the same pid, in the named network namespace."""
    return [*(["nsenter", f"--net=/run/netns/{netns}", "--"] if netns else []), *argv]


def run(
    argv: Sequence[str],
    *,
    netns: Optional[str] = None,
    input: Optional[str] = None,
    env: Optional[Mapping[str, str]] = None,
    timeout: float = 60.0,
) -> str:
    """Run a command to its end and return its stdout; RigError with its stderr if it fails."""
    try:
        done = subprocess.run(
            in_namespace(netns, argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            env=env,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise RigError(f"cannot run {' '.join(argv)}: not done after {timeout:g} s") from e
    if done.returncode != 0:
        raise RigError(f"cannot run {' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def wait_until(
    predicate: Callable[[], T],
    timeout: float,
    what: str,
    *,
    period: float = 0.05,
    alive: Callable[[], None] = lambda: None,
) -> T:
    """Call predicate every period seconds until it returns something true; return that.

    alive is called before each try and raises when waiting on makes no sense.
    """
    deadline = time.monotonic() + timeout
    while True:
        alive()
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise RigError(f"cannot wait any longer for {what}: not so after {timeout:g} s")
        time.sleep(period)


class Process:
    """One long-running program of the rig."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        ledger: Ledger,
        netns: Optional[str] = None,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[Path] = None,
    ) -> None:
        self.name = name
        self.log = log
        command = in_namespace(netns, ["setpriv", "--pdeathsig", "KILL", "--", *argv])
        with log.open("ab") as out:
            self._popen = _SPAWNER.submit(
                lambda: subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    env=env, cwd=cwd, start_new_session=True,
                )
            ).result()  # fmt: skip
        ledger.process(self.pid)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-_LOG_TAIL:]

    def wait_until(self, predicate: Callable[[], T], timeout: float, what: str) -> T:
        """As the function of that name, and RigError with the log's tail as soon as it died."""
        try:
            return wait_until(predicate, timeout, f"{self.name}: {what}", alive=self._alive)
        except RigError as e:
            raise RigError(f"{e}\n--- {self.log}\n{self.log_tail()}") from e

    def _alive(self) -> None:
        if not self.running:
            raise RigError(f"{self.name} ended with {self._popen.returncode}")

    def wait(self, timeout: float) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as e:
            raise RigError(f"{self.name} still runs after {timeout:g} s") from e

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after timeout seconds; nothing if it has ended already."""
        self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()


def path_environment(*directories: Path) -> dict[str, str]:
    """A minimal environment whose PATH starts with these directories."""
    path = ":".join([*map(str, directories), "/usr/sbin:/usr/bin:/sbin:/bin"])
    return {"PATH": path, "LANG": "C.UTF-8"}
