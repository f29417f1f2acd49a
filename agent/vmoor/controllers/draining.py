"""Drains and resumes when somebody asks for it, and keeps that over restarts and reboots.

It has no loop: requests come from the control socket, one after the other, what the cloud says
from the loop that watches it, and the first look is at what was kept. Registration and heartbeat
do what follows.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from vmoor.errors import LocalFault, Rejected, quoted
from vmoor.model import drain, record
from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained, Order
from vmoor.model.machine import Machine
from vmoor.model.notice import Notice
from vmoor.ports import Clock, Files
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

STATE = "/var/lib/vmoor/drained.json"


class Draining:
    """`hold`: nothing new goes into the mesh before the cloud was heard."""

    def __init__(
        self,
        *,
        drained: Cell[Drained],
        discovered: Cell[Discovered],
        machine: Machine,
        files: Files,
        clock: Clock,
        hold: bool = False,
    ) -> None:
        self._drained = drained
        self._discovered = discovered
        self._hash = machine.machine_hash
        self._files = files
        self._clock = clock
        self._lock = threading.Lock()
        kept = Drained()
        try:
            kept = drain.recalled(record.parsed(files.read(STATE)), self._hash)
        except LocalFault as e:
            log.warning("Cannot tell whether this VM was drained: %s", e)
        drained.set(replace(kept, hold=hold))

    def hear(self, notice: Optional[Notice]) -> None:
        """What the cloud announces now of this VM's end, None = nothing; never kept."""
        with self._lock:
            was = self._drained.get()
            now = was.noticed(notice, self._clock.wall())
            if now != was:
                self._drained.set(now)

    def obey(self, request: Mapping[str, Any]) -> str:
        """`verb` drain or resume, `service` or "" for the VM, `who` asks. What is so then.

        Raises Rejected for what cannot be done, LocalFault when it cannot be kept.
        """
        verb, service, who = (request.get(key) for key in ("verb", "service", "who"))
        if verb not in ("drain", "resume") or not isinstance(service, str):
            raise Rejected(f"cannot do {quoted(verb)} of {quoted(service)}")
        if not isinstance(who, str) or not drain.WHO.fullmatch(who):
            raise Rejected(f"cannot {verb} for {quoted(who)}: that is no user's name")
        with self._lock:
            return self._drain(service, who) if verb == "drain" else self._resume(service, who)

    def _drain(self, service: str, who: str) -> str:
        known = sorted(s.name for s in self._discovered.get().services)
        if service and service not in known:
            raise Rejected(
                f"cannot drain {quoted(service)}: this VM has "
                f"{'no such service, only ' + ', '.join(known) if known else 'no service'}"
            )
        was = self._drained.get()
        self._keep(was.with_order(service, Order(who, self._clock.wall())))
        if self._drained.get() != was:
            log.info("%s is drained by %s", service or "The whole VM", who)
        return "drained"

    def _resume(self, service: str, who: str) -> str:
        was = self._drained.get()
        self._keep(was.without(service))
        now = self._drained.get()
        if now != was:
            log.info("%s is resumed by %s", service or "The whole VM", who)
        if now.notice is not None:
            raise Rejected(
                f"cannot resume {service or 'this VM'}: it is out for the {now.notice.who}",
                remedy="it is back when the cloud takes that back, or without leave.notices",
            )
        if service and now.vm is not None:
            raise Rejected(
                f"cannot resume {service}: the whole VM is drained by {now.vm.who}",
                remedy="vmoor resume",
            )
        if not service and now.services:
            left = ", ".join(sorted(now.services))
            return f"resumed, but {left}: vmoor resume --service {sorted(now.services)[0]}"
        return "resumed"

    def _keep(self, drained: Drained) -> None:
        """On the disk first: what was answered is never forgotten."""
        if drained != self._drained.get():
            note = json.dumps(drain.record(drained, self._hash)).encode()
            self._files.write(STATE, note, 0o600, durable=True)
            self._drained.set(drained)
