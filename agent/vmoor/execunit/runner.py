"""Main process of vmoor-exec.service: a keeper for each request, and an end when there are none.

systemd holds the socket: who connects after the end starts the next runner.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path

from vmoor.config.load import ROOT
from vmoor.execunit import keeper
from vmoor.execunit.commands import Commands

LISTENER = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
KEEPERS = 16  # at once; more wait in the listen queue
IDLE_S = 600.0


def main(root: Path = ROOT, descriptor: int = LISTENER, idle: float = IDLE_S) -> int:
    commands, keepers = Commands(root), dict[int, int]()  # pidfd to pid
    with socket.socket(fileno=descriptor) as listener:
        listener.setblocking(False)  # noqa: FBT003 - positional only
        while True:
            free = [listener.fileno()] if len(keepers) < KEEPERS else []
            timeout = None if keepers else idle
            ready, _, _ = select.select([*free, *keepers], [], [], timeout)
            if not ready:
                return 0
            for ended in keepers.keys() & ready:
                os.waitpid(keepers.pop(ended), 0)
                os.close(ended)
            if listener.fileno() in ready:
                with contextlib.suppress(OSError):  # whoever connected is gone already
                    link, _ = listener.accept()
                    with link:
                        pid = _fork(link, commands, (listener.fileno(), *keepers))
                    keepers[os.pidfd_open(pid)] = pid


def _fork(link: socket.socket, commands: Commands, foreign: tuple[int, ...]) -> int:
    commands.refresh()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for descriptor in foreign:
            os.close(descriptor)
        with contextlib.suppress(OSError):
            keeper.serve(link, commands)
        code = 0
    finally:
        os._exit(code)
