"""Whether the process whose pid stands in a file lives."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from vmoor.errors import quoted
from vmoor.model.health import Probe

SIZE_LIMIT = 32  # bytes
HIGHEST_PID = 1 << 22  # PID_MAX_LIMIT, include/linux/threads.h
_NUMBER = re.compile(rb"[ \t]*([0-9]{1,20})\s*")
DEAD = "ProcessDead"


class ProcessState(NamedTuple):
    """What a pid file says. `pid` 0 = no pid could be had from it, `words` tell why."""

    pid: int = 0
    alive: bool = False
    words: str = ""


def pid_in(content: bytes) -> Optional[int]:
    """The pid that is the whole content of a pid file, None when it is anything else."""
    found = _NUMBER.fullmatch(content) if len(content) <= SIZE_LIMIT else None
    pid = int(found.group(1)) if found else 0
    return pid if 1 <= pid <= HIGHEST_PID else None


def probe(path: str, state: ProcessState, healthy: int) -> Probe:
    """`healthy` is the pid with which the check passes until now, 0 when it does not.

    A living process that is another one fails once: the one that was healthy died unseen.
    """
    if state.alive and healthy not in (0, state.pid):
        words = f"{quoted(path)}: pid {healthy} was replaced by pid {state.pid}"
    elif state.alive:
        return Probe(passed=True, words=f"pid {state.pid} lives")
    elif state.pid:
        words = f"{quoted(path)}: pid {state.pid} is dead"
    else:
        words = f"{quoted(path)}: {state.words}"
    return Probe(passed=False, words=words, reason=DEAD)
