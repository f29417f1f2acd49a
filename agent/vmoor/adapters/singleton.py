"""One agent per state directory: flock, released by the kernel however the process ends."""

from __future__ import annotations

import fcntl
import os

from vmoor.errors import LocalFault


def hold(path: str) -> int:
    """The locked descriptor; keep it open for life. Raises LocalFault when another has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise LocalFault(f"cannot run: another vmoor holds {path}") from e
    except OSError as e:
        raise LocalFault(f"cannot lock {path}: {e.strerror}") from e
    return descriptor
