"""logind's delay lock over a real bus: held, let go, and never ended by anybody but logind."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import jeepney
import pytest
from jeepney.io import blocking
from vmoor.adapters.inhibitor import ShutdownDelay

from tests.rig import process

LOGIND = "org.freedesktop.login1"
CONFIG = """\
<busconfig>
  <type>system</type><listen>unix:path={path}</listen>
  <policy context="default"><allow user="*"/><allow own="*"/>
  <allow send_type="method_call"/><allow send_type="signal"/><allow receive_sender="*"/>
  <allow send_requested_reply="true" send_type="method_return"/></policy>
</busconfig>
"""


class Logind:
    """As much of it as gives out locks and announces shutdowns."""

    def __init__(self, path: str, name: Optional[str] = LOGIND) -> None:
        self._link = blocking.DBusConnection(
            blocking.prep_socket(path, enable_fds=True), enable_fds=True
        )
        self.asked: list[Any] = []
        self.read = -1
        if name:
            blocking.Proxy(jeepney.message_bus, self._link).RequestName(name)
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._link.sock.shutdown(socket.SHUT_RDWR)
        if self.read >= 0:
            self._thread.join(5)
            os.close(self.read)
        self._link.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # until close()
            self._answer()

    def _answer(self) -> None:
        while True:
            message = self._link.receive()
            if message.header.fields.get(jeepney.HeaderFields.member) == "Inhibit":
                self.asked.append(message.body)
                self.read, write = os.pipe()
                reply = jeepney.new_method_return(message, "h", (write,))
                self._link.send(reply)
                os.close(write)

    def announce(self, *, down: bool) -> None:
        path = jeepney.DBusAddress(
            "/org/freedesktop/login1", interface="org.freedesktop.login1.Manager"
        )
        self._link.send(jeepney.new_signal(path, "PrepareForShutdown", "b", (down,)))

    def let_go(self) -> bool:
        """Whether nobody holds the lock any more: the pipe's other end is closed."""
        os.set_blocking(self.read, False)
        try:
            return os.read(self.read, 1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    path = str(tmp_path / "bus")
    config = tmp_path / "bus.conf"
    config.write_text(CONFIG.format(path=path))
    program = shutil.which("dbus-daemon")
    assert program
    argv = [program, f"--config-file={config}", "--nofork", "--nopidfile"]
    with subprocess.Popen(argv) as daemon:
        process.wait_until(Path(path).exists, 5, "the bus")
        yield path
        daemon.kill()


def test_it_is_held_until_let_go_and_only_logind_ends_the_wait(bus: str) -> None:
    """A shutdown that is announced by logind begins the leave; the lock stays until it is done."""
    with contextlib.closing(Logind(bus)) as logind, contextlib.closing(Logind(bus, None)) as other:
        _look(bus, logind, other)


def _look(bus: str, logind: Logind, impostor: Logind) -> None:
    begun = threading.Event()
    delay = ShutdownDelay(begun.set, bus)
    ending = threading.Event()
    threading.Thread(target=delay.run, args=(ending,), daemon=True).start()
    process.wait_until(lambda: logind.asked, 5, "the lock")
    assert logind.asked == [("shutdown", "vmoor", "this VM leaves the mesh first", "delay")]
    impostor.announce(down=True)
    logind.announce(down=False)
    assert not begun.wait(0.5)
    logind.announce(down=True)
    assert begun.wait(5)
    ending.set()
    time.sleep(0.3)
    assert not logind.let_go()
    delay.release()
    process.wait_until(logind.let_go, 5, "the lock to go")
