"""One look: a process of its own that runs a command, answers, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmoor import execunit
from vmoor.adapters import lines
from vmoor.adapters.run import ENVIRONMENT
from vmoor.errors import quoted
from vmoor.execunit.commands import Command, Commands, Key, Unknown

REQUEST_S = 2.0
ANSWER_S = 1.0
KILLED_S = 0.5  # until then a killed process is gone; one that waits for a disk may be not
KILLED_LOOK_S = 0.005
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
CHUNK = 64 << 10
ABOUT = re.compile(r"[ -~]{0,128}")


def serve(link: socket.socket, commands: Commands) -> None:
    """Answer one request. Raises OSError when whoever asked is gone."""
    # What loses its parent becomes a child of this process, so that it can be found.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        key, more = _request(link)
        answer = run(commands.get(key), more)
    except (Unknown, ValueError, RecursionError, OSError) as e:
        answer = {"error": quoted(e)}
    finally:
        _sweep()
    link.settimeout(ANSWER_S)
    link.sendall(json.dumps(answer).encode() + b"\n")


def _request(link: socket.socket) -> tuple[Key, Mapping[str, str]]:
    """What to run, and what more is in its environment.

    Raises ValueError for what is none, OSError when it does not come in time.
    """
    line = lines.read(link, time.monotonic() + REQUEST_S, execunit.REQUEST_LIMIT)
    if not line.endswith(b"\n"):
        raise ValueError("the request is not one line of at most 4 KiB")
    asked = json.loads(line)
    if asked == {"source": True}:
        return None, {}
    if type(asked) is dict and "hook" in asked:
        name, *about = (str(asked.get(key, "")) for key in ("hook", "vm", "reason"))
        if not all(ABOUT.fullmatch(text) for text in about):
            raise ValueError("vm and reason of a hook are a line of at most 128 characters")
        return name, dict(zip(("VMOOR_VM", "VMOOR_REASON"), about))
    service, check = (asked.get("service"), asked.get("check")) if type(asked) is dict else (0, 0)
    if type(service) is not str or type(check) is not int:
        raise ValueError(
            'the request is none of {"service": NAME, "check": INDEX}, {"source": true} and '
            '{"hook": NAME}'
        )
    return (service, check), {}


def run(command: Command, more: Mapping[str, str]) -> Mapping[str, Any]:
    """Raises OSError when it cannot be started."""
    until = time.monotonic() + command.timeout
    out, into = os.pipe()
    err, err_into = os.pipe() if command.apart else (out, into)
    process = subprocess.Popen(
        command.argv,
        cwd="/",
        env={**ENVIRONMENT, **more},
        stdin=subprocess.DEVNULL,
        stdout=into,
        stderr=err_into,
        start_new_session=True,
    )
    for end in {into, err_into}:
        os.close(end)
    # One byte more than is kept tells whether there was more.
    kept, timed_out = _follow(
        process.pid, {err: execunit.OUTPUT_LIMIT + 1, out: command.limit + 1}, until
    )
    # Before it is reaped: its number can't be another group's yet.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_S)
    code = -signal.SIGKILL if process.returncode is None else process.returncode
    return {
        "code": code if code >= 0 else 128 - code,
        "timed_out": timed_out,
        "output": kept[out][: command.limit].decode("utf-8", "surrogateescape"),
        "errors": kept[err][: execunit.OUTPUT_LIMIT].decode("utf-8", "surrogateescape")
        if command.apart
        else "",
        "cut": len(kept[out]) > command.limit,
    }


def _follow(
    pid: int, limits: Mapping[int, int], until: float
) -> tuple[Mapping[int, bytearray], bool]:
    """Until it ends, or its time has; what it started may hold the pipes for longer.

    `limits`: how many bytes are kept of each pipe.
    """
    ended, kept = os.pidfd_open(pid), {pipe: bytearray() for pipe in limits}
    waiting = [ended, *limits]
    while True:
        readable, _, _ = select.select(waiting, [], [], max(0.0, until - time.monotonic()))
        for pipe in kept.keys() & set(readable):
            chunk = os.read(pipe, CHUNK)
            kept[pipe] += chunk[: limits[pipe] - len(kept[pipe])]
            if not chunk:
                waiting.remove(pipe)
        # A descendant that never stops writing must not keep us from seeing the end.
        news = any(len(kept[pipe]) < limits[pipe] for pipe in kept.keys() & set(readable))
        if ended in readable and not news:
            return kept, False
        if time.monotonic() >= until:
            return kept, True


def _sweep() -> None:
    """Kill all that is left. Those that a killed one had started become our children in turn."""
    until = time.monotonic() + KILLED_S
    while time.monotonic() < until:
        for task in Path("/proc/self/task").iterdir():
            for pid in (task / "children").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(KILLED_LOOK_S)
