"""Log records to the journal: the sentence, its priority, and the fields of a white list.

systemd's own JournalHandler sends the record's whole dictionary, arguments included, and so every
value that a sentence leaves out.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Optional

try:
    from systemd.journal import send as _send
except ImportError:  # not a dependency everywhere: without it the lines go to stderr
    _send = None

IDENTIFIER = "vmoor"
FIELDS = ("VMOOR_EVENT", "VMOOR_SERVICE", "VMOOR_ENTRY", "VMOOR_STEP")  # what `extra=` may add
# VMOOR_EVENT → MESSAGE_ID, by which packaging/catalog explains it and others find it; never
# changed, never used again. From `systemd-id128 new`.
MESSAGE_IDS = {
    "moored": "fff33221fcd4416988333abb67d7f2bd",
    "unmoored": "67040bde6fb948a5aa68cbbf66ea5b6c",
    "service.healthy": "b04d35c87b1b4a378065929325266382",
    "service.unhealthy": "fd358330c3a3458ab56ec5d675183636",
    "service.unknown": "9bdb091cc3ee4c54866569d422e3baf5",
    "service.unselected": "0b940cbaa31f4ed58f98733f19aff6a4",
    "entry.in": "e8b4b3ddafcf4999aa7c715008b46c37",
    "entry.out": "1699f1f782ea48839d0e7ff061e13597",
    "step.failed": "42698e6bfb6f4317a93f56670a213f26",
    "step.recovered": "b9f6c23319ae449eababa5dfc0b39039",
    "security": "e92fd06a55d640b3a4bdaa1f249b86aa",
}
# syslog(3); everything louder than an error is for an operator's eyes at once.
PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG_PRIORITY = 7


def install(level: int = logging.INFO) -> None:
    """To the journal when stderr is a journal stream (systemd started us), else to stderr."""
    under_systemd = "JOURNAL_STREAM" in os.environ
    handler: logging.Handler = StderrHandler(prefixed=under_systemd)
    if _send and under_systemd:
        handler = JournalHandler(_send)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # other people's libraries
    logging.getLogger("vmoor").setLevel(level)


def set_level(name: str) -> None:
    """log.level of the configuration: debug, info, warning or error."""
    logging.getLogger("vmoor").setLevel(name.upper())


class JournalHandler(logging.Handler):
    """`send` is systemd.journal.send."""

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        extra = {name: value for name in FIELDS if (value := getattr(record, name, None))}
        if known := MESSAGE_IDS.get(extra.get("VMOOR_EVENT", "")):
            extra["MESSAGE_ID"] = known
        # Without a journal the line is lost and its author lives on. Never Handler.handleError:
        # it prints the record's arguments.
        with suppress(OSError):
            self._send(text(record), **_plain(record), **extra)


class StderrHandler(logging.Handler):
    """With sd-daemon(3)'s <n> before each line when journald reads it."""

    def __init__(self, *, prefixed: bool) -> None:
        super().__init__()
        self._prefixed = prefixed

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"<{priority(record.levelno)}>" if self._prefixed else ""
        lines = [f"{prefix}{line}\n" for line in text(record).splitlines()]
        with suppress(OSError):
            sys.stderr.write("".join(lines))
            sys.stderr.flush()


def priority(level: int) -> int:
    return next((number for least, number in PRIORITIES if level >= least), DEBUG_PRIORITY)


def text(record: logging.LogRecord) -> str:
    """The sentence, and the traceback of a bug."""
    message = record.getMessage()
    trouble: Optional[Any] = record.exc_info
    if trouble and trouble[0]:
        return message + "\n" + "".join(traceback.format_exception(*trouble)).rstrip()
    return message


def _plain(record: logging.LogRecord) -> dict[str, Any]:
    return {
        "PRIORITY": priority(record.levelno),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "LOGGER": record.name,
        "THREAD_NAME": record.threadName,
        "CODE_FILE": record.pathname,
        "CODE_LINE": record.lineno,
        "CODE_FUNC": record.funcName,
    }
