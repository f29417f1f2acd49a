"""Asks the runner of exec checks (vmoor.execunit) to look."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from vmoor import execunit
from vmoor.errors import quoted
from vmoor.model.health import Probe
from vmoor.model.service import ExecProbe

CONNECT_S = 0.2
GRACE_S = 1.0  # beyond the command's own time: the runner starts, and kills what is left


def look(probe: ExecProbe, timeout: float, path: str = execunit.SOCKET) -> Probe:
    """`timeout` is the command's, in seconds, which the runner takes from the configuration."""
    began = time.monotonic()
    until = began + timeout + GRACE_S
    try:
        try:
            answer = _ask(probe, until, path)
        except (_Ended, BrokenPipeError, ConnectionResetError):
            # An upgrade replaces the runner; its socket stays.
            answer = _ask(probe, until, path)
    except (FileNotFoundError, ConnectionRefusedError):
        unit = execunit.SOCKET_UNIT
        words = f"{unit} does not run: systemctl start {unit}"
        return Probe(passed=False, words=words)
    except socket.timeout:
        return Probe(passed=False, words=f"no answer of vmoor-exec after {timeout + GRACE_S:g}s")
    except (OSError, ValueError) as e:
        return Probe(passed=False, words=f"no answer of vmoor-exec: {quoted(e)}")
    return _judged(answer, timeout, time.monotonic() - began)


class _Ended(ValueError):
    """Without a word."""


def _ask(probe: ExecProbe, until: float, path: str) -> Mapping[str, Any]:
    """Raises OSError, or ValueError for an answer that is none."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(CONNECT_S)
        link.connect(path)
        link.sendall(json.dumps({"service": probe.service, "check": probe.check}).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0:
                raise socket.timeout
            link.settimeout(left)
            piece = link.recv(execunit.ANSWER_LIMIT + 1 - len(line))
            if not piece and not line:
                raise _Ended("it ended")
            if not piece:
                raise ValueError("it ended" if len(line) <= execunit.ANSWER_LIMIT else "too long")
            line += piece
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("not an object")  # noqa: TRY004 - said by the runner
    return answer


def _judged(answer: Mapping[str, Any], timeout: float, took: float) -> Probe:
    if "error" in answer:
        return Probe(passed=False, words=quoted(answer["error"]))
    if answer.get("timed_out"):
        return Probe(passed=False, words=f"timed out after {timeout:g}s")
    code = answer.get("code")
    said = quoted(next(iter(str(answer.get("output", "")).strip().splitlines()), ""))
    if code == 0:
        return Probe(passed=True, words=said or f"exit 0 in {took * 1000:.0f}ms")
    return Probe(passed=False, words=f"exit {quoted(code)}{': ' if said else ''}{said}")
