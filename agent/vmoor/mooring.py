"""The parts that moor the VM, made of what and woken by what. Part of the composition root."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Optional

from vmoor import errors, places
from vmoor.adapters import children, documents, kube, listeners, markers, notify, timed
from vmoor.adapters.addresses import AddressEvents
from vmoor.adapters.consul import ConsulAgent
from vmoor.adapters.control import ControlSocket
from vmoor.adapters.envoy_admin import EnvoyAdmin
from vmoor.adapters.inhibitor import ShutdownDelay
from vmoor.adapters.kube import Kube
from vmoor.adapters.probes import Probes
from vmoor.adapters.processes import Processes
from vmoor.adapters.pushes import Pushes
from vmoor.adapters.units import SystemdUnits
from vmoor.assembly import Parts
from vmoor.config.settings import Settings
from vmoor.controllers import leaving
from vmoor.controllers.catalog import Catalog
from vmoor.controllers.claim import Claiming
from vmoor.controllers.discovery import Discovery
from vmoor.controllers.documents import Documents
from vmoor.controllers.draining import Draining
from vmoor.controllers.health import Health, Track
from vmoor.controllers.heartbeat import Heartbeat
from vmoor.controllers.leaving import Leaving
from vmoor.controllers.lookout import Lookout
from vmoor.controllers.observer import Observer
from vmoor.controllers.pacing import Pacing
from vmoor.controllers.proxy import RIVAL, Proxy
from vmoor.controllers.registration import Registration
from vmoor.controllers.selectors import Selectors
from vmoor.controllers.sources import Cells, Outside, Sources
from vmoor.login import Login
from vmoor.model.discovered import Found
from vmoor.model.machine import Machine
from vmoor.model.registration import Observed
from vmoor.model.service import Workload
from vmoor.ports import Look
from vmoor.proxyunit import UNIT
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.lazy import Lazy
from vmoor.runtime.loop import Loop, Settled
from vmoor.runtime.supervisor import Pump

log = logging.getLogger(__name__)

Work = Callable[[], Settled]
SELF = "vmoor.service"
UNSHOWN = (  # no steps of their own: others tell what they saw
    "observer", "sources", "lookout", "selectors", "pacing", "hooks",
)  # fmt: skip
LAST_BEAT_S = 2.0
CONSUL_S = 5.0  # the longest back-off from an agent on this VM
NOTICES_S = 5.0  # and from metadata, which may have only seconds left to tell


class Mooring:
    """All but the login, which runs already. `go_down`: the machine is about to."""

    def __init__(
        self, parts: Parts, machine: Machine, login: Login, go_down: Callable[[], object]
    ) -> None:
        self._parts = parts
        self._identity = login.identity
        self._machine = machine
        self._units = SystemdUnits()
        self._delay = ShutdownDelay(go_down)
        self._processes = Processes()
        self._pushes = Pushes(parts.clock.now)
        self._observed = Cell(Observed())
        self._found = Cells()
        self._others = {name: Cell(Found(ready=False)) for name in ("consul", "file", "exec")}
        self._bells: dict[str, Bell] = {}
        self._cluster = Kube(kube.of_agent(parts.credentials.get, self._workload))
        self._finish_leaving()
        settings = parts.settings.get()
        self._draining = Draining(
            drained=parts.drained, discovered=parts.discovered, machine=machine,
            files=parts.files, clock=parts.clock, hold=settings is not None and settings.noticing,
        )  # fmt: skip
        shared: dict[str, Any] = {
            "settings": parts.settings, "credentials": parts.credentials, "machine": machine,
            "clock": parts.clock,
        }  # fmt: skip
        self._heartbeat = Heartbeat(
            label=parts.label, lock=parts.lock, beat=parts.beat, pace=parts.pace,
            drained=parts.drained, cluster=self._cluster, random=random.random, **shared,
        )  # fmt: skip
        self._pacing = self._make_pacing()
        self._registration = self._make_registration(shared)
        self._lookout = self._make_lookout()
        self.loops = (
            *self._finding(),
            *self._joining(shared),
            *self._registering(),
            *self._heard(),
        )
        self.pumps = (
            Pump("systemd", self._units.run),
            Pump("processes", self._processes.run),
            Pump("pushes", self._pushes.run),
            Pump("addresses", AddressEvents(self._moved).run),
            Pump("control", self._control().run),
            Pump("shutdown", self._delay.run),
        )
        self._connect()
        parts.show(login.loop, *(loop for loop in self.loops if loop.name not in UNSHOWN))

    def _finding(self) -> Iterator[Loop]:
        """What this VM has to offer."""
        catalog = self._catalog().reconcile
        yield self._loop("sources", self._make_sources().reconcile)
        yield self._loop("consul", catalog, detached=True, longest=lambda: CONSUL_S)
        for name, look in (("file", documents.file), ("exec", documents.printed)):
            yield self._loop(name, self._document(name, look).reconcile, detached=True)
        yield self._loop("discovery", self._make_discovery().reconcile)

    def _joining(self, shared: Mapping[str, Any]) -> Iterator[Loop]:
        """The VM itself: its proxy, its name, its address."""
        parts = self._parts
        claiming = Claiming(
            address=parts.address, lock=parts.lock, pace=parts.pace, label=parts.label,
            claimed=parts.claimed, cluster=self._cluster, random=random.random, **shared,
        )  # fmt: skip
        yield self._loop("proxy", self._proxy(shared).reconcile)
        yield self._loop("heartbeat", self._heartbeat.reconcile, longest=self._beats)
        yield self._loop("address", claiming.reconcile, longest=self._beats)
        yield self._loop("pacing", self._pacing.reconcile)

    def _registering(self) -> Iterator[Loop]:
        """Its services, and what the mesh makes of them."""
        yield self._loop("health", self._checks().reconcile)
        yield self._loop("registration", self._registration.reconcile)
        yield self._loop("observer", self._observer().reconcile, detached=True)
        yield self._loop("lookout", self._lookout.reconcile)
        yield self._loop("selectors", self._selectors().reconcile)

    def _beats(self) -> float:
        """An outage is no reason to ask more often than the fleet is told to."""
        return self._parts.pace.get().interval

    def _moved(self) -> None:
        timed.drop_moved()
        self._bells["discovery"].ring()

    def is_leave(self) -> bool:
        """Whether this SIGTERM ends the VM's membership: a stop, or the machine goes down.

        Unknown is not leaving: then the lease decides.
        """
        try:
            if self._units.system_state() == "stopping":
                return True
            settings = self._parts.settings.get()
            stops = settings is not None and settings.leave.on_stop
            return stops and self._units.job_type(SELF) == "stop"
        except errors.VmoorError as e:
            log.warning("Cannot ask systemd why we stop, so entries stay: %s", e)
            return False

    def leave(self, seconds: float) -> None:
        """All loops have ended, or will write no more."""
        parts = self._parts
        self._registration.end()
        self._lookout.end()
        self._prolong()
        controller = Leaving(
            settings=parts.settings, lock=parts.lock, beat=parts.beat, sights=parts.sights,
            machine=self._machine, cluster=self._cluster, envoy=EnvoyAdmin(), files=parts.files,
            clock=parts.clock, pause=_pause, tell=notify.status,
        )  # fmt: skip
        for left in controller.leave(seconds):
            log.warning("Left behind: %s", left)
        self._end_proxy()

    def _finish_leaving(self) -> None:
        """A drained Envoy stays so; nothing of this VM is in the mesh yet, so it can go."""
        if leaving.unfinished(self._parts.files):
            log.warning("A leave was interrupted: the proxy, which drains, is started anew")
            self._end_proxy()

    def _end_proxy(self) -> None:
        try:
            self._units.stop(UNIT)
            self._parts.files.remove(leaving.MARK)
        except errors.VmoorError as e:
            log.warning("Cannot stop %s: %s", UNIT, e)

    def let_go(self) -> None:
        """What is to be done before the machine goes down has been done."""
        self._delay.release()

    def pause(self) -> None:
        """A stop that is not a leave: one last beat that covers a restart or an upgrade."""
        self._prolong()

    def _prolong(self) -> None:
        lock = self._parts.lock
        try:
            if not lock.get().held and not lock.get().refused:
                self._heartbeat.reconcile()  # the API server may be back since the last try
            self._heartbeat.last_beat(LAST_BEAT_S)
        except errors.VmoorError as e:
            log.warning("Cannot send the last beat: %s", e)

    def _workload(self) -> Optional[Workload]:
        settings = self._parts.settings.get()
        return settings.workload if settings else None

    def _loop(self, name: str, reconcile: Callable[[], Settled], **more: Any) -> Loop:
        bell = self._bells.setdefault(name, Bell())
        clock, identity = self._parts.clock, self._identity
        more.update(refused=identity.refuse, distrusted=identity.recheck_facts)
        return Loop(name, reconcile, bell, clock, **more)

    def _make_sources(self) -> Sources:
        return Sources(
            settings=self._parts.settings,
            states=self._units.states,
            reloads=self._units.reloads,
            cells=self._found,
            outside=Outside(
                markers=markers.read,
                listening=listeners.ports,
            ),
            clock=self._parts.clock,
        )

    def _make_discovery(self) -> Discovery:
        parts = self._parts
        return Discovery(
            settings=parts.settings,
            credentials=parts.credentials,
            discovered=parts.discovered,
            address=parts.address,
            sources={  # the configuration, then these: who comes first has the name
                "systemd": self._found.systemd,
                **self._others,
                "sockets": self._found.sockets,
            },
            host=parts.host,
            vm=self._machine.name,
            watch_units=lambda units: self._units.watch([UNIT, RIVAL, *units]),
            watch_processes=self._processes.watch,
            watch_pushes=self._pushes.watch,
        )

    def _catalog(self) -> Catalog:
        parts = self._parts
        catalog = Catalog(
            settings=parts.settings,
            found=self._others["consul"],
            connect=lambda: ConsulAgent(parts.files),
            files=parts.files,
        )
        self._bells["consul"] = Bell(catalog.reloaded)
        return catalog

    def _document(self, name: str, look: Callable[[Any], Look]) -> Documents:
        parts = self._parts
        return Documents(
            name, look, settings=parts.settings, found=self._others[name], files=parts.files,
            clock=parts.clock,
        )  # fmt: skip

    def _proxy(self, shared: Mapping[str, Any]) -> Proxy:
        parts = self._parts
        render = children.Renderer(parts.files, f"{places.STATE}/rendered.json")
        render.prepare()
        return Proxy(
            discovered=parts.discovered, state=parts.proxy, units=self._units,
            files=parts.files, render=render,
            missing=lambda path: not os.access(path, os.X_OK), **shared,
        )  # fmt: skip

    def _checks(self) -> Health:
        parts, bell = self._parts, self._bells.setdefault("health", Bell())
        probes: Probes[Track] = Probes(bell.ring)
        return Health(
            discovered=parts.discovered, unit_states=self._units.states,
            process_states=self._processes.states, heard=self._pushes.heard,
            proxy_state=parts.proxy, verdicts=parts.verdicts, probes=probes,
            clock=parts.clock, random=random.random,
        )  # fmt: skip

    def _make_registration(self, shared: Mapping[str, Any]) -> Registration:
        parts = self._parts
        return Registration(
            discovered=parts.discovered, verdicts=parts.verdicts, drained=parts.drained,
            proxy_state=parts.proxy, lock=parts.lock, beat=parts.beat, claimed=parts.claimed,
            observed=self._observed,
            registered=parts.registered, selections=parts.selections, cluster=self._cluster,
            files=parts.files, **shared,
        )  # fmt: skip

    def _control(self) -> ControlSocket:
        return ControlSocket(self._draining.obey)

    def _heard(self) -> Iterator[Loop]:
        """What the cloud announces, and who wants to know when the VM is out."""

        def lazy(wanted: Callable[[Settings], object], make: Callable[[], Work]) -> Work:
            settings = self._parts.settings.get
            return Lazy(lambda: bool((s := settings()) and wanted(s)), make).reconcile

        for name, work in (
            ("notices", lazy(lambda settings: settings.noticing, self._make_notices)),
            ("hooks", lazy(lambda settings: settings.hooks, self._make_hooks)),
        ):
            yield self._loop(name, work, detached=True, longest=lambda: NOTICES_S)

    def _make_notices(self) -> Work:
        from vmoor.adapters import metadata  # noqa: PLC0415 - most VMs need neither
        from vmoor.controllers.notices import Notices  # noqa: PLC0415

        parts = self._parts
        return Notices(
            settings=parts.settings, told=parts.host.cloud, connect=metadata.of,
            hear=self._draining.hear, clock=parts.clock,
        ).reconcile  # fmt: skip

    def _make_hooks(self) -> Work:
        from vmoor.adapters import execs  # noqa: PLC0415
        from vmoor.controllers.hooks import Hooks  # noqa: PLC0415

        parts, vm = self._parts, self._machine
        return Hooks(
            settings=parts.settings, snapshot=parts.snapshot,
            run=lambda name, reason: execs.hook(name, vm.name, reason),
            envoy=EnvoyAdmin(), boot_id=vm.boot_id, files=parts.files, clock=parts.clock,
        ).reconcile  # fmt: skip

    def _observer(self) -> Observer:
        return Observer(
            settings=self._parts.settings,
            credentials=self._parts.credentials,
            observed=self._observed,
            machine=self._machine,
            cluster=self._cluster,
        )

    def _make_pacing(self) -> Pacing:
        parts = self._parts
        return Pacing(
            settings=parts.settings, credentials=parts.credentials, pace=parts.pace,
            cluster=self._cluster, clock=parts.clock,
        )  # fmt: skip

    def _make_lookout(self) -> Lookout:
        parts = self._parts
        return Lookout(
            settings=parts.settings, discovered=parts.discovered, registered=parts.registered,
            sights=parts.sights, lock=parts.lock, beat=parts.beat, machine=self._machine,
            envoy=EnvoyAdmin(), cluster=self._cluster, clock=parts.clock,
        )  # fmt: skip

    def _selectors(self) -> Selectors:
        parts = self._parts
        return Selectors(
            settings=parts.settings, verdicts=parts.verdicts, drained=parts.drained,
            sights=parts.sights, selections=parts.selections, machine=self._machine,
            cluster=self._cluster, clock=parts.clock,
        )  # fmt: skip

    def _connect(self) -> None:
        """Which change wakes which loop."""
        parts, bell = self._parts, self._bells
        parts.settings.rings(*(bell[name] for name in bell))
        for name in ("discovery", "proxy", "heartbeat", "address"):
            parts.credentials.rings(bell[name])
        for name in ("registration", "observer", "pacing"):
            parts.credentials.rings(bell[name])
        parts.address.rings(bell["address"])
        parts.label.rings(bell["heartbeat"])
        parts.claimed.rings(bell["registration"])
        parts.discovered.rings(bell["proxy"], bell["health"], bell["registration"])
        parts.proxy.rings(bell["health"], bell["registration"])
        parts.verdicts.rings(bell["registration"])
        parts.drained.rings(bell["registration"], bell["heartbeat"], bell["hooks"])
        parts.registered.rings(bell["hooks"])
        parts.sights.rings(bell["hooks"])
        parts.lock.rings(bell["address"], bell["registration"])
        # The API server is back: what could not be written need not wait for a back-off's end.
        beating = next(loop for loop in self.loops if loop.name == "heartbeat")
        beating.recoveries.rings(bell["registration"], bell["observer"])
        self._observed.rings(bell["registration"])
        parts.registered.rings(bell["lookout"])
        parts.sights.rings(bell["selectors"])
        parts.selections.rings(bell["registration"])
        self._units.states.rings(bell["proxy"], bell["health"], bell["sources"])
        self._units.reloads.rings(bell["sources"])
        self._processes.states.rings(bell["health"])
        self._pushes.heard.rings(bell["health"])
        mine = self._found
        for found in (mine.systemd, mine.sockets, *self._others.values()):
            found.rings(bell["discovery"])


def _pause(seconds: float) -> None:
    """Of a leave, which may outlast the watchdog: before a shutdown systemd knows of no stop."""
    notify.watchdog()
    threading.Event().wait(seconds)
