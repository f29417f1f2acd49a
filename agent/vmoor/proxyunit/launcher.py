"""Main process of vmoor-proxy.service: starts pilot-agent, tells systemd how the proxy is.

pilot-agent gets a pipe of this process as its stdout and stderr: meshes with
`accessLogFile: /dev/stdout` have Envoy open /dev/stdout, which fails on the journal's socket and
on a pipe that another user made, and then no listener is accepted.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Optional

from vmoor import proxyunit
from vmoor.proxyunit import environment, local, readiness, trusted

# In the cwd, which is all of the file system that pilot-agent's relative paths see.
FOLDERS = ("etc/istio/config", "etc/istio/proxy", "etc/certs", "var/run/secrets/tokens")
LINKS = {
    "etc/istio/config/mesh": "mesh.yaml",
    "var/run/secrets/tokens/istio-token": "istio-token",
}
IDENTITY = ("TRUST_DOMAIN", "POD_NAMESPACE", "SERVICE_ACCOUNT")
# Between probes until the proxy is ready: each tick is part of a VM's start, but istiod may be
# away for hours.
STARTING_S, WAITING_S = 0.02, 0.2
PATIENT_S = 10.0
RUNNING_S = 1.0
LATE_S = 2.0  # then readiness counts as missed
# How long each of the two may take to show that it lives. Envoy's main thread is busy for 10 to
# 20 s with a huge push: WatchdogSec= is longer than two looks, each of at most
# LATE_S + 2 * ALIVE_S + RUNNING_S.
ALIVE_S = 5.0
DRAIN_LEAST_S = 1.0  # the agent says Healthy=False, istiod waits 0.1 s, clients obey
DRAIN_MOST_S = 5.0  # pilot-agent's own default, terminationDrainDuration
KILL_S = 5.0
ACTIVE = re.compile(r"^inbound\|.*::rq_active::[1-9]", re.MULTILINE)


def lay_out() -> None:
    """Links, so that a renewed token and a new root are seen by their next reader."""
    for folder in FOLDERS:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for link, name in LINKS.items():
        temporary = Path(f"{link}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"{proxyunit.RENDERED}/{name}")
        temporary.replace(link)


def drop_foreign_certificate(variables: Mapping[str, str]) -> None:
    """A kept certificate of another identity would be renewed for ever, and istiod refuses the
    proxy whose metadata name somebody else (istio pilot/pkg/xds/auth.go).
    """
    identity = "/".join(variables.get(key, "") for key in IDENTITY)
    note = Path("identity")
    if note.exists() and note.read_text() != identity:
        for kept in Path("etc/certs").glob("*.pem"):
            kept.unlink()
    note.write_text(identity)


def read_environment(path: str) -> environment.Environment:
    """Raises OSError or environment.Refused."""
    # Neither a link to elsewhere nor a pipe that blocks for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, encoding="utf-8", errors="strict") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise environment.Refused(f"{path} is not a file")
        return environment.parse(file.read(1 << 20))


def probe(*, ready_before: bool) -> readiness.Probe:
    reason, hard = _readiness()
    return readiness.Probe(reason, hard, alive=ready_before and _alive())


def _alive() -> bool:
    """Any answer counts: during a drain both may well say that they are not ready.

    pilot-agent answers for an Envoy that hangs, so that one is asked, too: with the capture rules
    in force a hanging Envoy cuts the VM off.
    """
    try:
        local.ask(local.AGENT, "/healthz/ready", timeout=ALIVE_S)
        local.ask(local.ADMIN, "/ready", timeout=ALIVE_S)
    except OSError:
        return False
    return True


def _readiness() -> tuple[Optional[str], bool]:
    try:
        status = local.ask(local.READINESS, "/healthz/ready", timeout=LATE_S)
    except ConnectionError:
        return "Envoy does not listen", True
    except OSError:
        return "Envoy does not answer", False
    if status == 200:  # noqa: PLR2004 - HTTP
        return None, False
    return f"Envoy answers {status}: no configuration from istiod, or draining", False


class Launcher:
    """One pilot-agent from start to end."""

    def __init__(self, found: environment.Environment, notify_socket: str) -> None:
        self._notify_socket = notify_socket
        self._told = readiness.Told()
        self._stop_at: Optional[float] = None  # since when we are stopping
        self._killed = 0
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGABRT):  # the last: WatchdogSignal=
            signal.signal(number, _heard)  # read from the wakeup descriptor, between two looks
        self._notify(f"STATUS={proxyunit.STARTING}")
        self._child = subprocess.Popen(
            [found.pilot_agent, "proxy", "sidecar"],
            env=dict(found.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, with Envoy in it
        )
        self._started = time.monotonic()
        self._notify("READY=1")  # the root hook now waits beside us until Envoy is ready
        self._copier = threading.Thread(target=self._copy, daemon=True)
        self._copier.start()

    def run(self) -> int:
        """pilot-agent's exit code, 128 + its signal."""
        try:
            self._attend(os.pidfd_open(self._child.pid))
        finally:
            self._end_envoy()
        code = self._child.wait()
        return code if code >= 0 else 128 - code

    def _attend(self, ended: int) -> None:
        """Until pilot-agent has ended, or the watchdog wants us to."""
        while True:
            readable, _, _ = select.select([self._wake, ended], [], [], self._pause())
            if self._wake in readable:
                if signal.SIGABRT in os.read(self._wake, 64):
                    return  # Envoy hangs: nobody waits for a drain
                self._begin_stop()
            if ended in readable:
                return
            self._look()

    def _pause(self) -> float:
        if self._told.ready and self._stop_at is None:
            return RUNNING_S
        patient = time.monotonic() - self._started > PATIENT_S
        return WAITING_S if patient else STARTING_S

    def _look(self) -> None:
        if self._stop_at is None:
            self._told, lines = readiness.judge(self._told, probe(ready_before=self._told.ready))
            self._notify(*lines)
            return
        self._end(time.monotonic() - self._stop_at)

    def _begin_stop(self) -> None:
        if self._stop_at is not None:
            return
        self._stop_at = time.monotonic()
        self._notify("STOPPING=1", f"STATUS={proxyunit.STOPPING}")
        # After it pilot-agent ends at a SIGTERM at once, instead of waiting for its 5 s.
        try:
            local.ask(local.AGENT, "/drain", method="POST", timeout=1.0)
        except OSError:
            self._signal(signal.SIGTERM)

    def _end(self, since: float) -> None:
        over = since > DRAIN_MOST_S or not self._told.ready
        if self._killed == 0 and (over or (since > DRAIN_LEAST_S and not _busy())):
            self._signal(signal.SIGTERM)
        if since > DRAIN_MOST_S + KILL_S:
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._killed = number
        # Popen's own would reap: a zombie holds the number of its group until that is killed.
        os.kill(self._child.pid, number)

    def _end_envoy(self) -> None:
        """pilot-agent may end before it has killed Envoy (its main returns while Run() still
        selects, istio pkg/envoy/proxy.go). The capture rules go after us, and the NAT of what is
        open with them: an end that Envoy met later would reach nobody, and peers hang.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        # Until the last one has let go of the pipe; what came by it is the reason why it ended.
        self._copier.join(KILL_S)

    def _copy(self) -> None:
        pipe = self._child.stdout
        if pipe is None:
            return
        while chunk := os.read(pipe.fileno(), 65536):
            try:
                while chunk:
                    chunk = chunk[os.write(1, chunk) :]
            except OSError:
                continue  # the journal is away: what is said now is lost, the proxy must not block

    def _notify(self, *lines: str) -> None:
        if lines and self._notify_socket:
            address = self._notify_socket
            address = "\0" + address[1:] if address.startswith("@") else address
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
                link.sendto("\n".join(lines).encode(), address)


def _heard(number: int, frame: Optional[FrameType]) -> None:
    """Python needs a handler to write to the wakeup descriptor."""


def _busy() -> bool:
    """Whether a request from outside is being served."""
    try:
        return bool(ACTIVE.search(local.fetch(local.ADMIN, "/clusters")))
    except OSError:
        return True


def main() -> int:
    notify_socket = os.environ.get("NOTIFY_SOCKET", "")
    try:
        found = read_environment(f"{proxyunit.RENDERED}/proxy.env")
        trusted.check(found.pilot_agent)
        trusted.check(found.envoy)
        lay_out()
        drop_foreign_certificate(found.variables)
        return Launcher(found, notify_socket).run()
    except (OSError, UnicodeError, environment.Refused, trusted.Untrusted) as e:
        sys.stderr.write(f"cannot start the proxy: {e}\n")
        return 1
