"""Asks the runner of the operator's commands (vmoor.execunit): checks, and sources.exec."""

from __future__ import annotations

import json
import shlex
import socket
import time
from collections.abc import Mapping
from typing import Any

from vmoor import execunit
from vmoor.adapters import lines
from vmoor.config.settings import ExecSource
from vmoor.errors import Unavailable, quoted
from vmoor.model.health import Probe
from vmoor.model.service import ExecProbe

CONNECT_S = 0.2
GRACE_S = 1.0  # beyond the command's own time: the runner starts, and kills what is left


def look(probe: ExecProbe, timeout: float, path: str = execunit.SOCKET) -> Probe:
    """`timeout` is the command's, in seconds, which the runner takes from the configuration."""
    return _told({"service": probe.service, "check": probe.check}, timeout, path)


def printed(source: ExecSource, path: str = execunit.SOCKET) -> bytes:
    """What the source's command prints. Raises Unavailable when that is not good."""
    program, timeout = source.command[0], source.timeout
    try:
        answer = _asked({"source": True}, timeout, execunit.DOCUMENT_LIMIT, path)
    except Unavailable as e:
        raise Unavailable(f"cannot run {program}: {e.message}", remedy=e.remedy) from None
    words = ""
    if answer.get("cut"):
        words = f"it prints more than {execunit.DOCUMENT_LIMIT >> 20} MiB"
    if answer.get("timed_out") or answer.get("code") != 0:
        words = _judged({**answer, "output": answer.get("errors", "")}, timeout, 0.0).words
    if words:
        remedy = f"see what it does: {by_hand(source)}"
        raise Unavailable(f"cannot use {program}: {words}", remedy=remedy)
    # The lone surrogates that stand for bytes which are no UTF-8 become such bytes again.
    return str(answer.get("output", "")).encode("utf-8", "surrogatepass")


def hook(name: str, vm: str, reason: str, path: str = execunit.SOCKET) -> Probe:
    """Runs hooks.NAME, with these in its environment."""
    return _told({"hook": name, "vm": vm, "reason": reason}, execunit.HOOK_S, path)


def by_hand(source: ExecSource) -> str:
    """For a person: the command as the runner's user."""
    return f"runuser -u {execunit.GROUP} -- {shlex.join(source.command)}"


def _told(request: Mapping[str, Any], timeout: float, path: str) -> Probe:
    """How a command went of which only that is of interest."""
    began = time.monotonic()
    try:
        answer = _asked(request, timeout, execunit.OUTPUT_LIMIT, path)
    except Unavailable as e:
        remedy = f": {e.remedy}" if e.remedy else ""
        return Probe(passed=False, words=f"{e.message}{remedy}")
    return _judged(answer, timeout, time.monotonic() - began)


def _asked(
    request: Mapping[str, Any], timeout: float, output: int, path: str
) -> Mapping[str, Any]:
    """Raises Unavailable when the runner does not answer or ran nothing."""
    until, limit = time.monotonic() + timeout + GRACE_S, execunit.answer_limit(output)
    try:
        try:
            answer = _ask(request, until, limit, path)
        except (_Ended, BrokenPipeError, ConnectionResetError):
            # An upgrade replaces the runner; its socket stays.
            answer = _ask(request, until, limit, path)
    except (FileNotFoundError, ConnectionRefusedError):
        unit = execunit.SOCKET_UNIT
        raise Unavailable(f"{unit} does not run", remedy=f"systemctl start {unit}") from None
    except socket.timeout:
        raise Unavailable(f"no answer of vmoor-exec after {timeout + GRACE_S:g}s") from None
    except (OSError, ValueError, RecursionError) as e:
        raise Unavailable(f"no answer of vmoor-exec: {quoted(e)}") from None
    if "error" in answer:
        raise Unavailable(quoted(answer["error"]))
    return answer


class _Ended(ValueError):
    """Without a word."""


def _ask(request: Mapping[str, Any], until: float, limit: int, path: str) -> Mapping[str, Any]:
    """Raises OSError, or ValueError for an answer that is none."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(CONNECT_S)
        link.connect(path)
        link.sendall(json.dumps(request).encode() + b"\n")
        line = lines.read(link, until, limit + 1)
    if not line:
        raise _Ended("it ended")
    if not line.endswith(b"\n"):
        raise ValueError("it ended" if len(line) <= limit else "too long")
    answer = json.loads(line)
    if not isinstance(answer, dict):
        raise ValueError("not an object")  # noqa: TRY004 - said by the runner
    return answer


def _judged(answer: Mapping[str, Any], timeout: float, took: float) -> Probe:
    if answer.get("timed_out"):
        return Probe(passed=False, words=f"timed out after {timeout:g}s")
    code = answer.get("code")
    said = quoted(next(iter(str(answer.get("output", "")).strip().splitlines()), ""))
    if code == 0:
        return Probe(passed=True, words=said or f"exit 0 in {took * 1000:.0f}ms")
    return Probe(passed=False, words=f"exit {quoted(code)}{': ' if said else ''}{said}")
