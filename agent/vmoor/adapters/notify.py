"""What systemd is told of this process (sd_notify)."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger(__name__)

WATCHDOG_SHARE = 3  # feeds within one WatchdogSec
WITHOUT_WATCHDOG_S = 5.0


def ready() -> None:
    _tell("READY=1")


def status(words: str) -> None:
    _tell(f"STATUS={' '.join(words.split())}")


def watchdog() -> None:
    _tell("WATCHDOG=1")


def stopping() -> None:
    _tell("STOPPING=1")


def watchdog_interval() -> float:
    """Seconds between two feeds."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 1e6 / WATCHDOG_SHARE if limit.isdecimal() else WITHOUT_WATCHDOG_S


def _tell(state: str) -> None:
    """Nothing happens outside systemd. An address that starts with @ is abstract."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.connect("\0" + address[1:] if address.startswith("@") else address)
            to.sendall(state.encode())
    except OSError as e:
        # Never a reason to end, or to skip a leave; without READY systemd itself gives up.
        log.warning("Cannot tell systemd %s: %s", state.partition("=")[0], e.strerror)
