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
LEAVE_S = 10.0  # of TimeoutStopSec=45s


class Daemon:
    """One life of the agent, from exec to exit code."""

    def __init__(self, read: children.Reader) -> None:
        self._stopping = False
        self._parts = Parts(read)
        self._mooring: Optional[Mooring] = None

    def run(self) -> int:
        supervisor = self._parts.supervisor
        supervisor.start(
            self._parts.loops(), [Pump("signals", self._heed(signals.wakeups(*SIGNALS)))]
        )
        notify.ready()
        # 0.15 s of libraries, loaded while the child process validates the configuration.
        from vmoor.mooring import Mooring  # noqa: PLC0415

        tick = notify.watchdog_interval()
        settings, machine = self._parts.settings, self._parts.machine
        settings.rings(supervisor.bell)
        trouble = supervisor.watch(lambda: self._stopping or settings.get() is not None, tick)
        this = machine.get()
        if settings.get() and this and not self._stopping and not trouble:
            self._mooring = Mooring(self._parts, this)
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
                        self._stopping = True
                        self._parts.supervisor.bell.ring()

        return heed

    def _end(self, trouble: Optional[str]) -> int:
        if trouble is not None:
            log.critical("The agent ends and systemd starts a new one: %s", trouble)
            return errors.EXIT_NOT_FINE
        notify.stopping()
        leaving = self._mooring is not None and self._mooring.is_leave()
        still = self._parts.supervisor.stop(STOP_S)
        if still:
            log.warning("Stopped without waiting longer for: %s", ", ".join(still))
        if self._mooring is not None:
            if leaving:
                self._mooring.leave(LEAVE_S)
                self._parts.status.left()
            else:
                self._mooring.pause()
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
