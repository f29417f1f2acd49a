"""The reaper's composition root: one life, from exec to exit code."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from vmoor import __version__, errors
from vmoor.adapters import account, journal, metrics, notify, signals
from vmoor.adapters.clock import SystemClock
from vmoor.adapters.kube import Kube
from vmoor.controllers.metrics import Metrics
from vmoor.controllers.status import steps
from vmoor.model.metrics import Family, build, failing
from vmoor.model.reaper import MANAGER, NAMESPACE, seen
from vmoor.model.reaper.decision import Brake
from vmoor.model.reaper.election import RETRY_S, Leadership
from vmoor.model.reaper.metrics import of_reaper, of_vms
from vmoor.model.reaper.seen import Endpoint, Pulse
from vmoor.ports import Kind
from vmoor.reaper.election import Election
from vmoor.reaper.publishing import Publishing
from vmoor.reaper.reaping import Reaping
from vmoor.reaper.watcher import Sight, Watcher
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Loop
from vmoor.runtime.supervisor import Pump, Supervisor

log = logging.getLogger(__name__)

STOP_S = 3.0
LONGEST_S = 5.0  # of a back-off: who watches must be back soon


@dataclass(frozen=True)
class Options:
    server: str
    ca: str
    token_file: str
    budget: float
    zone_loss: bool
    metrics_listen: str = ""  # HOST:PORT; "" = not served


class Reaper:
    def __init__(self, options: Options) -> None:
        self._clock = clock = SystemClock()
        self._stopping = False
        self._access = account.of_files(
            options.server, options.ca, options.token_file, account=f"{NAMESPACE}/{MANAGER}",
            remedy="vmoor admin manifests --reaper | kubectl apply -f -",
        )  # fmt: skip
        identity = f"{os.uname().nodename}_{secrets.token_hex(4)}"
        self._leadership = leadership = Cell(Leadership())
        self._leases = leases = Cell[Sight[Pulse]](Sight())
        self._entries = entries = Cell[Sight[Endpoint]](Sight())
        self._brakes = brakes = Cell[tuple[Brake, ...]](())
        self._removals, latency = Cell(0), Cell(0.0)
        cluster = Kube(self._access)
        self._election = Election(identity, leadership, latency, cluster, clock)
        reaping = Reaping(
            leadership=leadership, leases=leases, entries=entries, latency=latency,
            brakes=brakes, removals=self._removals, zone_loss=options.zone_loss,
            cluster=cluster, clock=clock,
        )  # fmt: skip
        publishing = Publishing(
            identity=identity, budget=options.budget, leadership=leadership, leases=leases,
            brakes=brakes, tell=notify.status, cluster=cluster, clock=clock,
        )  # fmt: skip
        watched = Watcher(Kind.LEASE, seen.pulse, leases, cluster, clock)
        listed = Watcher(Kind.ENTRY, seen.endpoint, entries, cluster, clock)
        bell = Bell()
        brakes.rings(bell)
        self._loops = (
            Loop("election", self._election.reconcile, Bell(), clock, longest=lambda: RETRY_S),
            Loop(
                "leases",
                watched.reconcile,
                Bell(),
                clock,
                detached=True,
                longest=lambda: LONGEST_S,
            ),
            Loop(
                "entries",
                listed.reconcile,
                Bell(),
                clock,
                detached=True,
                longest=lambda: LONGEST_S,
            ),
            Loop("reaping", reaping.reconcile, Bell(), clock, longest=lambda: RETRY_S),
            Loop("publishing", publishing.reconcile, bell, clock, longest=lambda: LONGEST_S),
            *self._serving(options.metrics_listen),
        )

    def _serving(self, where: str) -> Iterator[Loop]:
        if where:
            metered = Metrics(lambda: where, lambda at: metrics.listen(at, self._told))
            yield Loop("metrics", metered.reconcile, Bell(), self._clock, detached=True)

    def _told(self) -> Iterator[Family]:
        """To Prometheus. Of VMs that are not seen now nothing is said."""
        now, leases, entries = self._clock.now(), self._leases.get(), self._entries.get()
        yield build(__version__)
        yield failing(steps(self._loops))
        yield from of_reaper(
            leads=self._leadership.get().acts(now),
            brakes=self._brakes.get(),
            removals=self._removals.get(),
        )
        if entries.live and not leases.silent(now):
            yield of_vms(now, leases.things.values(), entries.things.values())

    def run(self) -> int:
        supervisor = Supervisor(self._clock, notify.watchdog)
        descriptor = signals.wakeups(signal.SIGTERM, signal.SIGINT)

        def heed(_: threading.Event) -> None:
            while True:
                os.read(descriptor, 64)
                self._stopping = True
                supervisor.bell.ring()

        supervisor.start(self._loops, [Pump("signals", heed)])
        notify.ready()
        tick = notify.watchdog_interval()
        trouble = supervisor.watch(lambda: self._stopping, tick)
        return self._end(supervisor, trouble)

    def _end(self, supervisor: Supervisor, trouble: Optional[str]) -> int:
        if trouble is not None:
            log.critical("The reaper ends and is to be started anew: %s", trouble)
            return errors.EXIT_NOT_FINE
        notify.stopping()
        supervisor.stop(STOP_S)
        try:
            self._election.release()
        except errors.VmoorError as e:
            log.warning("Cannot release the leadership: %s", e)
        return errors.EXIT_OK


def main(options: Options) -> int:
    """`vmoor reaper`."""
    journal.install()
    threading.current_thread().name = "vmoor-reaper"
    log.info("vmoor %s, reaper", __version__)
    return Reaper(options).run()
