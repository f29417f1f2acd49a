"""Signals as bytes to read: a handler may interrupt the very lock of a bell."""

from __future__ import annotations

import os
import signal


def wakeups(*numbers: int) -> int:
    """A descriptor on which each of these signals, once caught, is a byte: its number."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(read, True)
    signal.set_wakeup_fd(write)
    for number in numbers:
        signal.signal(number, lambda *_: None)
    return read
