"""What runs from the first instant, with or without a configuration. Part of the root."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Optional

from vmoor import __version__, places
from vmoor.adapters import children, journal, metrics, notify
from vmoor.adapters.clock import SystemClock
from vmoor.adapters.files import LocalFiles
from vmoor.adapters.host import LocalHost
from vmoor.config.settings import Settings, Sources
from vmoor.controllers import status as status_controller
from vmoor.controllers.configuration import Configuration
from vmoor.controllers.metrics import Metrics, Server
from vmoor.controllers.status import Status
from vmoor.model.claim import Claimed
from vmoor.model.credential import Credentials
from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained
from vmoor.model.entry import EntryState
from vmoor.model.health import Verdict
from vmoor.model.identity import IdentityState
from vmoor.model.lease import Beat, Lock, Pace
from vmoor.model.machine import Machine
from vmoor.model.metrics import of_agent
from vmoor.model.proxy import ProxyState
from vmoor.model.selection import Selection
from vmoor.model.sight import Sight
from vmoor.model.status import Snapshot
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Loop
from vmoor.runtime.supervisor import Supervisor


class Parts:
    """The cells that all share, and the two loops that need no configuration."""

    def __init__(self, read: children.Reader) -> None:
        self.clock = SystemClock()
        self.files = LocalFiles()
        self.host = LocalHost(boot_id=os.environ.get("VMOOR_BOOT_ID", ""))
        self.settings: Cell[Optional[Settings]] = Cell(None)
        self.machine: Cell[Optional[Machine]] = Cell(None)
        self.credentials: Cell[Optional[Credentials]] = Cell(None)
        self.identity = Cell(IdentityState())
        self.discovered = Cell(Discovered())
        self.address = Cell("")  # of the VM: the same as in `discovered`, which changes more often
        self.proxy = Cell(ProxyState())
        self.verdicts: Cell[Mapping[str, Verdict]] = Cell({})
        self.drained = Cell(Drained())
        self.lock, self.beat, self.pace = Cell(Lock()), Cell(Beat()), Cell(Pace())
        self.label: Cell[Optional[str]] = Cell(None)  # that the Lease shall carry
        self.claimed = Cell(Claimed())
        self.registered: Cell[tuple[EntryState, ...]] = Cell(())
        self.sights: Cell[Mapping[str, Sight]] = Cell({})
        self.selections: Cell[Mapping[str, Selection]] = Cell({})
        self.supervisor = Supervisor(self.clock, notify.watchdog)
        self._steps: list[Loop] = []
        self._status_bell = Bell()
        self._configuration = Configuration(
            self.settings,
            read,
            lambda: children.stamp(places.ETC),
            self.files,
            places.ACCEPTED,
            self.host.machine,
            self.machine,
            self._taken,
        )
        self.status = Status(self.snapshot, notify.status, self.files, self.clock)
        self._config = Loop("config", self._configuration.reconcile, Bell(), self.clock)
        self._metrics: Optional[Loop] = None
        told = (self.settings, self.machine, self.credentials, self.identity, self.discovered,
                self.proxy, self.verdicts, self.lock, self.beat, self.pace, self.registered,
                self.sights, self.selections, self.drained)  # fmt: skip
        for cell in told:
            cell.rings(self._status_bell)

    def loops(self) -> tuple[Loop, ...]:
        self.show(self._config)
        return self._config, Loop("status", self.status.reconcile, self._status_bell, self.clock)

    def show(self, *loops: Loop) -> None:
        """These loops are steps of the status."""
        for loop in loops:
            loop.outcome.rings(self._status_bell)
        self._steps.extend(loops)

    def _shown(self, settings: Optional[Settings]) -> Sequence[Loop]:
        """Without those of sources that are not configured: such a loop has its source's name."""
        lacks = settings.lacks if settings else Sources().lacks
        return [loop for loop in self._steps if not lacks(loop.name)]

    def _taken(self, settings: Settings) -> None:
        journal.set_level(settings.log_level)
        if settings.metrics_listen and self._metrics is None:
            controller = Metrics(self._metrics_listen, self._listen)
            bell = Bell(controller.changed)
            self._metrics = Loop("metrics", controller.reconcile, bell, self.clock, detached=True)
            self.settings.rings(bell)
            self.show(self._metrics)
            self.supervisor.start([self._metrics])

    def _metrics_listen(self) -> str:
        settings = self.settings.get()
        return settings.metrics_listen if settings else ""

    def _listen(self, address: str) -> Server:
        return metrics.listen(address, lambda: of_agent(self.status.look()))

    def reload(self) -> None:
        self._configuration.reload()
        self._config.bell.ring()

    def snapshot(self) -> Snapshot:
        settings = self.settings.get()
        now = self.clock.now()
        return Snapshot(
            version=__version__,
            now=now,
            offset=self.clock.wall() - now,
            steps=status_controller.steps(self._shown(settings)),
            machine=self.machine.get(),
            mesh=settings.mesh.name if settings else "",
            workload=settings.workload if settings else None,
            discovered=self.discovered.get(),
            credentials=self.credentials.get() is not None,
            identity=vars(self.identity.get()),
            proxy=self.proxy.get(),
            lock=self.lock.get(),
            beat=self.beat.get(),
            pace=self.pace.get(),
            verdicts=self.verdicts.get(),
            entries=self.registered.get(),
            sights=self.sights.get(),
            selections=self.selections.get(),
            drained=self.drained.get(),
        )
