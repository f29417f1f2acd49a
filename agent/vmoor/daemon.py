"""The composition root: makes the parts, gives each what it needs, starts and ends them.

No decision about the mesh stands here. What a SIGTERM means is asked of systemd (design:
stopping is not always leaving); everything else is a loop.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from vmoor import __version__, errors, places
from vmoor.adapters import children, journal, notify, signals, singleton
from vmoor.assembly import Parts
from vmoor.runtime.supervisor import Pump

if TYPE_CHECKING:
    from vmoor.mooring import Mooring

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_S = 3.0  # for the loops to end their pass; a leave has its own time after that
CANCELLED_S = 10.0  # a shutdown that was announced brings a SIGTERM at once
LEAVE_S = 40.0  # since the signal, all in all; TimeoutStopSec=45s


class Daemon:
    """One life of the agent, from exec to exit code."""

    def __init__(self, read: children.Reader) -> None:
        self._stopping = self._going_down = False
        self._terminated = threading.Event()
        self._parts = Parts(read)
        self._mooring: Optional[Mooring] = None

    def run(self) -> int:
        supervisor = self._parts.supervisor
        supervisor.start(
            self._parts.loops(), [Pump("signals", self._heed(signals.wakeups(*SIGNALS)))]
        )
        notify.ready()
        # The libraries, 0.2 s: loaded while a child process validates the configuration, and
        # those of all but the login also while Vault answers.
        from vmoor.login import Login  # noqa: PLC0415

        login = Login(self._parts)
        supervisor.start([login.loop])
        from vmoor.mooring import Mooring  # noqa: PLC0415

        tick = notify.watchdog_interval()
        settings, machine = self._parts.settings, self._parts.machine
        settings.rings(supervisor.bell)
        trouble = supervisor.watch(lambda: self._stopping or settings.get() is not None, tick)
        this = machine.get()
        if settings.get() and this and not self._stopping and not trouble:
            self._mooring = Mooring(self._parts, this, login, self._go_down)
            supervisor.start(self._mooring.loops, self._mooring.pumps)
            trouble = supervisor.watch(lambda: self._stopping, tick)
        return self._end(trouble)

    def _heed(self, descriptor: int) -> Callable[[threading.Event], None]:
        """A thread's work, not a handler's: a handler may interrupt the very lock of the bell."""

        def heed(_: threading.Event) -> None:
            while True:
                for number in os.read(descriptor, 64):
                    if number == signal.SIGHUP:
                        self._parts.reload()
                    else:
                        self._terminated.set()
                        self._stop()

        return heed

    def _stop(self) -> None:
        self._stopping = True
        self._parts.supervisor.bell.ring()

    def _go_down(self) -> None:
        self._going_down = True
        self._stop()

    def _end(self, trouble: Optional[str]) -> int:
        if trouble is not None:
            log.critical("The agent ends and systemd starts a new one: %s", trouble)
            return errors.EXIT_NOT_FINE
        if not self._going_down:  # or systemd would take the stop for done, and send no SIGTERM
            notify.stopping()
        clock = self._parts.clock
        ends = clock.now() + LEAVE_S
        mooring = self._mooring
        leaving = mooring is not None and (self._going_down or mooring.is_leave())
        still = self._parts.supervisor.stop(STOP_S)
        if still:
            log.warning("Stopped without waiting longer for: %s", ", ".join(still))
        if mooring is not None and leaving:
            mooring.leave(ends - clock.now())
            self._parts.status.left()
            mooring.let_go()
        elif mooring is not None:
            mooring.pause()
        if self._going_down:
            # If it does not, after all: systemd starts the agent anew, and the VM moors again.
            self._terminated.wait(CANCELLED_S)
        return errors.EXIT_OK


def main(read: children.Reader) -> int:
    """`vmoor run`; `read` may have begun to validate."""
    journal.install()
    threading.current_thread().name = "vmoor"
    log.info("vmoor %s", __version__)
    try:
        held = singleton.hold(f"{places.STATE}/lock")
    except errors.LocalFault as e:
        log.critical("%s", e)
        return errors.EXIT_NOT_FINE
    log.debug("holding lock, descriptor %d", held)
    return Daemon(read).run()
