"""Runs the operator's command when this VM is moored, and when it is drained.

Each once: what was told last is kept, before its command begins, so that a restart of ours or a
reboot repeats none. A command that fails is told, and nothing follows from it.
"""

from __future__ import annotations

import json
import logging
from typing import Callable, Optional

from vmoor.config.settings import Settings
from vmoor.errors import LocalFault
from vmoor.model import drain, record, status
from vmoor.model.drain import Order
from vmoor.model.health import Probe
from vmoor.model.status import Snapshot
from vmoor.ports import Clock, Envoy, Files
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

STATE = "/var/lib/vmoor/hooks.json"
CALM_S = 300.0
MOORED = "moored"
MOORING_S = 1.0  # between two looks whether it is moored: many cells have a say in that
DRAINING_S = 0.1
ENVOY_S = 2.0


class Hooks:
    """A pass lasts as long as a command: its loop needs that patience.

    `run` takes the hook's name and the reason, and tells how it went.
    """

    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        snapshot: Callable[[], Snapshot],
        run: Callable[[str, str], Probe],
        envoy: Envoy,
        boot_id: str,
        files: Files,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._run = run
        self._envoy = envoy
        self._boot = boot_id
        self._files = files
        self._clock = clock
        self._said = self._kept()  # of this mooring, or of the drains since it ended
        self._drains: tuple[str, float] = ("", 0.0)

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None or not settings.hooks:
            return Settled("not configured", CALM_S, waiting=True)
        snap = self._snapshot()
        if snap.drained.unheard:
            return Settled("the cloud was not heard yet", CALM_S, waiting=True)
        order = snap.drained.whole
        if order is not None:
            return self._drained(settings, snap, order)
        self._drains = ("", 0.0)
        if self._said == (MOORED,):
            return Settled("moored", CALM_S)
        if status.moored(snap):
            return self._tell(settings, "moored", "", (MOORED,))
        self._keep(())  # what was drained is no more
        return Settled("not moored", MOORING_S, waiting=True)

    def _drained(self, settings: Settings, snap: Snapshot, order: Order) -> Settled:
        what = f"drained by {order.who}"
        if what in self._said:  # also when another wish came after it, and went
            return Settled(what, CALM_S)
        now = self._clock.now()
        if self._drains[0] != what:
            self._drains = (what, now)
        left = self._left(snap)
        if left and now < self._drains[1] + settings.drain_timeout:
            return Settled(f"draining: {left}", DRAINING_S, waiting=True)
        if left:
            log.warning("%s after %.0f s of draining", left, now - self._drains[1])
        said = tuple(each for each in self._said if each != MOORED)
        return self._tell(settings, "drained", order.who, (*said, what))

    def _left(self, snap: Snapshot) -> str:
        """What the drain still waits for; "" = it is complete."""
        services = status.document(snap)["services"]
        unseen = drain.unseen(services)
        if unseen:
            return unseen
        ports = {port for service in services for port in service["ports"].values()}
        count = self._envoy.requests(ports, deadline=ENVOY_S) or 0
        return f"{count} request{'' if count == 1 else 's'} open" if count else ""

    def _tell(self, settings: Settings, name: str, reason: str, said: tuple[str, ...]) -> Settled:
        self._keep(said)
        command = settings.hooks.get(name)
        if command:
            began = self._clock.now()
            probe = self._run(name, reason)
            took = self._clock.now() - began
            if probe.passed:
                log.info("hooks.%s done in %.1f s: %s", name, took, probe.words)
            else:
                log.warning("hooks.%s failed: %s: %s", name, command[0], probe.words)
        return Settled(said[-1], 0.0)  # it may have changed meanwhile

    def _kept(self) -> tuple[str, ...]:
        try:
            note = record.parsed(self._files.read(STATE))
        except LocalFault as e:
            log.warning("Cannot tell which hook ran last: %s", e)
            return ()
        told = note.get("said")
        said = tuple(str(each) for each in told) if isinstance(told, list) else ()
        # A drain may outlive a reboot; that it is moored, a VM has to show after each boot.
        return said if MOORED not in said or note.get("boot") == self._boot else ()

    def _keep(self, said: tuple[str, ...]) -> None:
        if said != self._said:
            note = json.dumps({"said": said, "boot": self._boot}).encode()
            self._files.write(STATE, note, 0o600, durable=True)
            self._said = said
