"""Commands: the only module that starts processes. No shell, a fixed environment, an end.

Never put a secret into argv: every user of the machine can read it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Optional

from vmoor.errors import LocalFault

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
OUTPUT_LIMIT = 8 << 20  # bytes of stdout and stderr; Istio's largest ConfigMap is 1 MiB
_PIECE = 1 << 16


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: str = "",  # noqa: A002 - subprocess's own word
    env: Optional[Mapping[str, str]] = None,
) -> Done:
    """Run to the end, whatever the exit code.

    Raises LocalFault when it doesn't start, isn't done after `timeout` seconds or writes more
    than OUTPUT_LIMIT; it is dead then, with all that it started.
    """
    stdin = _file(input) if input else None
    try:
        child = subprocess.Popen(  # noqa: S603 - argv, no shell
            list(argv),
            stdin=stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(ENVIRONMENT if env is None else env),
            start_new_session=True,
        )
    except OSError as e:
        raise LocalFault(f"cannot run {argv[0]}: {e.strerror}") from e
    finally:
        if stdin:
            stdin.close()
    end = time.monotonic() + timeout
    with child:
        try:
            texts = _collect(child, argv[0], end)
            code = child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise LocalFault(f"cannot run {argv[0]}: not done after {timeout:g} s") from None
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
    return Done(code, *texts)


def _file(text: str) -> IO[bytes]:
    """A file in memory: the child may read as slowly as it likes."""
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write(text.encode())
    file.seek(0)
    return file


def _collect(child: subprocess.Popen[bytes], name: str, end: float) -> tuple[str, str]:
    """What it writes, until both pipes are closed. Raises TimeoutExpired at `end`."""
    if child.stdout is None or child.stderr is None:
        raise AssertionError
    pieces: dict[int, bytearray] = {}
    with selectors.DefaultSelector() as selector:
        for pipe in (child.stdout, child.stderr):
            selector.register(pipe, selectors.EVENT_READ)
            pieces[pipe.fileno()] = bytearray()
        while selector.get_map():
            left = end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(name, 0)
            for key, _ in selector.select(left):
                piece = os.read(key.fd, _PIECE)
                if not piece:
                    selector.unregister(key.fileobj)
                pieces[key.fd] += piece
                if len(pieces[key.fd]) > OUTPUT_LIMIT:
                    raise LocalFault(f"cannot use {name}: it writes over {OUTPUT_LIMIT >> 20} MiB")
    out, err = (bytes(text).decode(errors="replace") for text in pieces.values())
    return out, err
