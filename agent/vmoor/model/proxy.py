"""What is known of vmoor-proxy.service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class UnitState:
    """A systemd unit as the manager tells it (org.freedesktop.systemd1)."""

    name: str
    load: str = "not-found"  # LoadState
    active: str = "inactive"  # ActiveState
    sub: str = "dead"  # SubState
    main_pid: int = 0
    invocation_id: str = ""
    status_text: str = ""  # the unit's own STATUS=
    result: str = ""
    active_since: int = 0  # ActiveEnterTimestamp, Unix microseconds; 0 = never


class ProxyState(NamedTuple):
    """The proxy as the verdicts need it. `live` = ready now and the capture rules in force."""

    live: bool = False
    words: str = "not started"
    invocation_id: str = ""
    since: float = 0.0  # Clock.now() seconds
    restart_pending: bool = False  # what is rendered differs from what the proxy runs with
    mode: str = ""  # "redirect + DNS"


# What stands in the cell until the unit was read once: not "down", but "not known".
UNSEEN = ProxyState()
