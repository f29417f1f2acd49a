"""Rings when the kernel changes an address or a route of this VM (rtnetlink(7)); reads no more."""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

# linux/rtnetlink.h: RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE
GROUPS = 0x10 | 0x40 | 0x100 | 0x400
SETTLE_S = 0.05  # a DHCP client takes the old address away, then sets the new one, then the route
AGAIN_S = 30.0


class AddressEvents:
    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring

    def run(self, stop: threading.Event) -> None:
        """The reading thread's life. Without the socket, discovery's own looks have to do."""
        while not stop.is_set():
            trouble = self._follow(stop)
            log.warning("Cannot follow this VM's addresses: %s", trouble)
            stop.wait(AGAIN_S)

    def _follow(self, stop: threading.Event) -> str:
        """Why it ended. Waits without a limit: the thread is a daemon, nobody waits for it."""
        try:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, socket.NETLINK_ROUTE) as told:
                told.bind((0, GROUPS))
                told.setblocking(False)  # noqa: FBT003 - its only parameter
                while not stop.is_set():
                    select.select([told], [], [])
                    stop.wait(SETTLE_S)
                    _drain(told)
                    self._ring()
        except OSError as e:
            return e.strerror or str(e)
        return "stopped"


def _drain(told: socket.socket) -> None:
    """What it says does not matter, nor what was lost (ENOBUFS): everything is looked at anew."""
    try:
        while told.recv(1 << 16):
            pass
    except OSError:
        return
