"""logind's delay lock: the machine goes down only after this VM has left the mesh.

With it the leave comes before anything is stopped, so no application needs to be ordered after
the agent. Without logind, or past its InhibitDelayMaxSec=, the order of the units decides.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Optional

import jeepney
from jeepney.io import blocking

from vmoor.adapters.bus import SOCKET

log = logging.getLogger(__name__)

AGAIN_S = 60.0  # logind was restarted, or is not there
CALL_S = 2.0
_LOGIND = jeepney.DBusAddress(
    "/org/freedesktop/login1", "org.freedesktop.login1", "org.freedesktop.login1.Manager"
)
_LOCK = ("shutdown", "vmoor", "this VM leaves the mesh first", "delay")


class ShutdownDelay:
    """`begins` is called once, from the thread of `run`, when the machine is about to go down."""

    def __init__(self, begins: Callable[[], object], path: str = SOCKET) -> None:
        self._begins = begins
        self._path = path
        self._lock: Optional[Any] = None

    def run(self, stop: threading.Event) -> None:
        told = False
        while not stop.is_set():
            try:
                self._hold()
                stop.wait()
                return
            except (OSError, RuntimeError, jeepney.DBusErrorResponse) as e:
                if not told:
                    log.info("No delay of a shutdown by logind: %s", e)
                told = True
            self.release()
            stop.wait(AGAIN_S)

    def release(self) -> None:
        """The machine may go down."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _hold(self) -> None:
        """Until the machine goes down. jeepney's own connection: this lock is a descriptor."""
        with blocking.DBusConnection(
            blocking.prep_socket(self._path, enable_fds=True), enable_fds=True
        ) as link:
            bus = blocking.Proxy(jeepney.message_bus, link, timeout=CALL_S)
            owner = bus.GetNameOwner(_LOGIND.bus_name)[0]
            rule = jeepney.MatchRule(
                type="signal",
                sender=owner,  # messages carry this name; anybody could send one to us alone
                interface=_LOGIND.interface,
                member="PrepareForShutdown",
                path=_LOGIND.object_path,
            )
            with link.filter(rule) as found:
                bus.AddMatch(rule)
                call = jeepney.new_method_call(_LOGIND, "Inhibit", "ssss", _LOCK)
                reply = link.send_and_get_reply(call, timeout=CALL_S)
                if reply.header.message_type is jeepney.MessageType.error:
                    raise jeepney.DBusErrorResponse(reply)
                self._lock = reply.body[0]
                log.debug("Holding logind's delay lock")
                while not _goes_down(link, found):
                    if bus.GetNameOwner(_LOGIND.bus_name)[0] != owner:
                        raise RuntimeError("logind was restarted")
        log.info("The machine goes down: leaving the mesh first")
        self._begins()


def _goes_down(link: Any, found: Any) -> bool:
    """Within AGAIN_S; a shutdown that was called off is told by the same signal."""
    try:
        return bool(link.recv_until_filtered(found, timeout=AGAIN_S).body[0])
    except TimeoutError:
        return False
