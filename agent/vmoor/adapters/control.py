"""The control socket: a line of JSON in, a line of JSON out, then the connection is over.

Who may connect is the file's mode: root and the agent's own user.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from vmoor.adapters import lines
from vmoor.errors import LocalFault, VmoorError

log = logging.getLogger(__name__)

PATH = "/run/vmoor/admin.sock"
LONGEST = 4096  # bytes of a line
TIME_S = 5.0  # for one conversation; a durable write of 1 KB is in it
_AGAIN_S = 1.0


class ControlSocket:
    """`obey` takes a request and returns what is so then, or raises a VmoorError."""

    def __init__(self, obey: Callable[[Mapping[str, Any]], str], path: str = PATH) -> None:
        self._obey = obey
        self._path = path

    def run(self, stop: threading.Event) -> None:
        """A thread's life: one conversation after the other."""
        while not stop.is_set():
            try:
                self._serve(stop)
            except OSError as e:
                log.warning("Cannot listen on %s: %s", self._path, e.strerror)
                stop.wait(_AGAIN_S)

    def _serve(self, stop: threading.Event) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - of an agent that is no more
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(self._path)
            os.chmod(self._path, 0o600)  # noqa: PTH101 - nobody can connect before listen
            listener.listen(4)
            while not stop.is_set():
                link, _ = listener.accept()
                with link, suppress(OSError):
                    said = _line(link)
                    if not stop.is_set():  # an agent that leaves obeys no more
                        link.sendall(self._answer(said))

    def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise ValueError  # noqa: TRY301, TRY004
        except ValueError:
            answer = {"error": "cannot read the request", "remedy": ""}
        else:
            try:
                answer = {"done": self._obey(request)}
            except VmoorError as e:
                answer = {"error": e.message, "remedy": e.remedy}
        return json.dumps(answer).encode() + b"\n"


def ask(request: Mapping[str, Any], path: str = PATH) -> str:
    """For the command line. Raises LocalFault, also for what the agent refuses."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(TIME_S)
            link.connect(path)
            link.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(_line(link))
    except PermissionError as e:
        raise LocalFault("cannot ask the agent: only root may", remedy="sudo vmoor ...") from e
    except (OSError, ValueError) as e:
        raise LocalFault(
            "cannot ask the agent: it does not run, or has no configuration yet",
            remedy="systemctl status vmoor",
        ) from e
    if "done" in answer:
        return str(answer["done"])
    raise LocalFault(str(answer.get("error")), remedy=str(answer.get("remedy") or ""))


def _line(link: socket.socket) -> bytes:
    """Raises OSError when it takes too long or is too long."""
    got = lines.read(link, time.monotonic() + TIME_S, LONGEST)
    if not got.endswith(b"\n"):
        raise OSError("no line")
    return got
