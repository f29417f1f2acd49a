"""Commands: the only module that starts processes. No shell, a fixed environment, an end.

Never put a secret into argv: every user of the machine can read it.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional

from vmoor.errors import LocalFault

ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}
OUTPUT_LIMIT = 8 << 20  # bytes of stdout and stderr; Istio's largest ConfigMap is 1 MiB
_PIECE = 1 << 16


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Running:
    """A command that has started and will be finished once, or killed."""

    def __init__(self, argv: Sequence[str], env: Optional[Mapping[str, str]] = None) -> None:
        """Raises LocalFault when it doesn't start."""
        self._name = argv[0]
        try:
            self._child = subprocess.Popen(  # noqa: S603 - argv, no shell
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(ENVIRONMENT if env is None else env),
                start_new_session=True,
            )
        except OSError as e:
            raise LocalFault(f"cannot run {argv[0]}: {e.strerror}") from e

    def finish(
        self,
        input: bytes,  # noqa: A002 - subprocess's own word
        timeout: float,
        limit: int = OUTPUT_LIMIT,
        heed: Optional[Callable[[bytes], None]] = None,
    ) -> Done:
        """Give it `input` and wait for its end, `timeout` seconds at most.

        `heed` gets its stdout in pieces, as they come; then there is none in what is returned.
        Raises LocalFault as `run` does.
        """
        end = time.monotonic() + timeout
        with self._child as child:
            try:
                texts = _converse(child, self._name, input, end, limit, heed)
                code = child.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise LocalFault(
                    f"cannot run {self._name}: not done after {timeout:g} s"
                ) from None
            finally:
                self.kill()
        return Done(code, *texts)

    def ended(self) -> bool:
        return self._child.poll() is not None

    def kill(self) -> None:
        """It, with all that it started, if it still runs."""
        if self._child.returncode is None:  # not reaped yet, so the number is still its own
            os.killpg(self._child.pid, signal.SIGKILL)


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: str = "",  # noqa: A002 - subprocess's own word
    env: Optional[Mapping[str, str]] = None,
    limit: int = OUTPUT_LIMIT,
    heed: Optional[Callable[[bytes], None]] = None,
) -> Done:
    """Run to the end, whatever the exit code. `heed`: see `Running.finish`.

    Raises LocalFault when it doesn't start, isn't done after `timeout` seconds or writes more
    than `limit` bytes; it is dead then, with all that it started.
    """
    return Running(argv, env).finish(input.encode(), timeout, limit, heed)


class _Pipe:
    """What comes out of one, `limit` bytes at most."""

    def __init__(self, limit: int, heed: Optional[Callable[[bytes], None]] = None) -> None:
        self.content = bytearray()
        self._limit = self._left = limit
        self._heed = heed or self.content.extend

    def take(self, descriptor: int, name: str) -> bool:
        """False at its end. Raises LocalFault."""
        piece = os.read(descriptor, _PIECE)
        self._left -= len(piece)
        if self._left < 0:
            raise LocalFault(f"cannot use {name}: it writes over {self._limit >> 20} MiB")
        self._heed(piece)
        return bool(piece)


def _converse(
    child: subprocess.Popen[bytes],
    name: str,
    give: bytes,
    end: float,
    limit: int,
    heed: Optional[Callable[[bytes], None]],
) -> tuple[str, str]:
    """What it writes, until both pipes are closed. Raises TimeoutExpired at `end`."""
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise AssertionError
    pipes = {child.stdout.fileno(): _Pipe(limit, heed), child.stderr.fileno(): _Pipe(limit)}
    with selectors.DefaultSelector() as selector:
        os.set_blocking(child.stdin.fileno(), False)
        selector.register(child.stdin, selectors.EVENT_WRITE)
        for descriptor in pipes:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            left = end - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(name, 0)
            for key, _ in selector.select(left):
                if key.fileobj is child.stdin:
                    give = _give(key.fd, give)
                    done = not give
                else:
                    done = not pipes[key.fd].take(key.fd, name)
                if done:
                    selector.unregister(key.fileobj)
                if done and key.fileobj is child.stdin:
                    child.stdin.close()
    out, err = (bytes(p.content).decode(errors="replace") for p in pipes.values())
    return out, err


def _give(descriptor: int, left: bytes) -> bytes:
    """What is still to be written; a child that reads no more needs no more."""
    try:
        return left[os.write(descriptor, left) :]
    except BrokenPipeError:
        return b""
