"""Asks root (vmoor.ttlunit) to make the folders of the ttl checks."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Optional

from vmoor import ttlunit
from vmoor.errors import quoted

CONNECT_S = 0.2
ANSWER_S = 10.0  # vmoor-ttl@.service is ended after 5 s


class Asked:
    """One question, from now on; its answer is read without waiting. Raises OSError."""

    def __init__(self, path: str) -> None:
        self.until = time.monotonic() + ANSWER_S
        self.link = socket.socket(socket.AF_UNIX)
        self._said = b""
        try:
            self.link.settimeout(CONNECT_S)
            self.link.connect(path)
            self.link.setblocking(False)  # noqa: FBT003 - positional only
        except OSError:
            self.link.close()
            raise

    def read(self) -> Optional[Mapping[str, str]]:
        """The problems by service, "" = of all; None = there is more to come."""
        try:
            piece = self.link.recv(ttlunit.ANSWER_LIMIT)
        except BlockingIOError:
            return None
        except OSError as e:
            return {"": f"no answer of vmoor-ttl: {quoted(e)}"}
        self._said += piece
        if piece and len(self._said) <= ttlunit.ANSWER_LIMIT:
            return None
        try:
            problems = json.loads(self._said)
        except ValueError:
            problems = None
        if not isinstance(problems, dict):
            return {"": "no answer of vmoor-ttl: journalctl -u 'vmoor-ttl@*'"}
        return {str(name): quoted(words) for name, words in problems.items()}


def unasked(error: OSError) -> Mapping[str, str]:
    """The problem that it is when nobody could be asked."""
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        unit = ttlunit.SOCKET_UNIT
        return {"": f"{unit} does not run: systemctl start {unit}"}
    return {"": f"cannot ask vmoor-ttl: {quoted(error)}"}
