"""Renders the proxy's files, keeps vmoor-proxy.service running, tells whether it is live.

What is rendered anew waits ("restart pending") for `vmoor proxy restart`, but for one thing: a
proxy that still names the VM's old address gets no inbound side for the new one, and is
restarted. A proxy outlives the agent; nothing here stops one for good.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Optional

from vmoor.config.settings import Settings
from vmoor.errors import LocalFault, Unavailable
from vmoor.model import record
from vmoor.model.credential import Credentials
from vmoor.model.discovered import Discovered
from vmoor.model.facts import MeshFacts
from vmoor.model.machine import Machine
from vmoor.model.proxy import UNSEEN, ProxyState, UnitState
from vmoor.ports import Clock, Files, Units
from vmoor.proxyunit import READY, RENDERED, RULES, UNIT
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

TEXTS = ("proxy.env", "mesh.yaml")
ROOT_CA = "root-cert.pem"
TOKEN = "istio-token"  # noqa: S105 - a file's name
RUNNING = "/run/vmoor/proxy.json"  # which digest the running proxy was started with
PARAMETERS = "/run/vmoor/parameters.json"  # what the templates were told, for `vmoor render`
RIVAL = "istio.service"
MODE = 0o640  # read by the group istio-proxy
CALM_S = 60.0
STARTING_S = 1.0  # the unit's signals wake us; this only bounds a lost one
SETTLED_S = 3.0  # a route that comes and goes restarts nothing
SLOW_S = 10.0  # a start takes one; after this the cause is outside, most likely istiod


class Proxy:
    """`render` maps the parameters to the files' texts in a child process."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        discovered: Cell[Discovered],
        machine: Machine,
        state: Cell[ProxyState],
        units: Units,
        files: Files,
        clock: Clock,
        render: Callable[[Mapping[str, Any]], Mapping[str, str]],
        missing: Callable[[str], bool],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._discovered = discovered
        self._machine = machine
        self._state = state
        self._units = units
        self._files = files
        self._clock = clock
        self._render = render
        self._missing = missing
        self._written: Mapping[str, str] = {}
        self._spec = ""  # digest of the parameters that were rendered last
        self._digest = ""  # digest of the rendered texts
        self._new_address = ("", 0.0)  # and since when, Clock.now()

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        unit = self._units.state(UNIT)
        if not unit.load:  # D-Bus has not told yet: saying "not live" now would cost traffic
            return Settled("waiting for systemd", STARTING_S, waiting=True)
        self._publish(unit)
        if settings is None:
            return Settled("waiting for the configuration", CALM_S, waiting=True)
        rival = self._units.state(RIVAL)
        if rival.active in ("active", "activating"):
            raise LocalFault(
                "cannot run beside istio.service, which captures the same traffic",
                remedy="systemctl disable --now istio; systemctl mask istio",
            )
        credentials, found = self._credentials.get(), self._discovered.get()
        if credentials is None:
            return Settled(self._waiting("identity"), CALM_S, waiting=True)
        if not found.address:
            return Settled(self._waiting("this VM's address"), CALM_S, waiting=True)
        for binary in (settings.proxy.pilot_agent, settings.proxy.envoy):
            if self._missing(binary):
                raise LocalFault(
                    f"cannot start the proxy: {binary} is not there",
                    remedy="install Istio's package istio-sidecar, or set proxy.pilot_agent",
                )
        self._remember(unit)
        self._prepare(settings, credentials, found)
        return self._drive(unit, settings, credentials.facts.istio.discovery[0])

    def _waiting(self, what: str) -> str:
        return f"live, waiting for {what}" if self._state.get().live else f"waiting for {what}"

    def _prepare(self, settings: Settings, credentials: Credentials, found: Discovered) -> None:
        facts = credentials.facts
        parameters = _parameters(settings, facts, self._machine, found)
        spec = _digest(parameters)
        if spec != self._spec:
            texts = self._render(parameters)
            for name, text in texts.items():
                self._put(name, text)
            note = json.dumps(parameters, indent=2, sort_keys=True)
            self._files.write(PARAMETERS, note.encode(), 0o644)
            self._spec, self._digest = spec, _digest(texts)
        self._put(ROOT_CA, facts.istio.root_ca)
        self._put(TOKEN, credentials.istio.value.reveal())

    def _put(self, name: str, text: str) -> None:
        mark = _digest(text)
        if self._written.get(name) != mark:
            self._files.write(f"{RENDERED}/{name}", text.encode(), MODE)
            self._written = {**self._written, name: mark}

    def _drive(self, unit: UnitState, settings: Settings, istiod: str) -> Settled:
        if unit.load == "not-found":
            raise LocalFault(f"cannot find {UNIT}", remedy="reinstall the package vmoor")
        if unit.active in ("inactive", "failed"):
            self._units.start(UNIT)
            return Settled("starting", STARTING_S, waiting=True)
        if unit.active == "active" and self._moved(settings):
            log.warning("The proxy restarts: this VM's address has changed")
            self._units.restart(UNIT)
            return Settled("restarting for the new address", STARTING_S, waiting=True)
        self._publish(unit)
        state = self._state.get()
        if not state.live and self._clock.now() - state.since >= SLOW_S:
            raise Unavailable(
                f"cannot get the proxy ready: {state.words}",
                remedy=f"let this VM reach istiod at {istiod}, see journalctl -u vmoor-proxy",
            )
        if not state.live:
            return Settled(state.words, STARTING_S, waiting=True)
        if self._new_address[0]:
            return Settled("live, the address has changed", STARTING_S)
        pending = "; restart pending: vmoor proxy restart" if state.restart_pending else ""
        return Settled(f"live, {state.mode}{pending}", CALM_S)

    def _remember(self, unit: UnitState) -> None:
        """A proxy that was started since the last look has read the files as they are now."""
        if unit.invocation_id and unit.invocation_id != self._running().get("invocation_id"):
            texts = {name: self._found(name) for name in TEXTS}
            told = record.parsed(self._files.read(PARAMETERS))
            note = {
                "invocation_id": unit.invocation_id,
                "digest": _digest(texts),
                "address": told.get("instance_ip", ""),
            }
            self._files.write(RUNNING, json.dumps(note).encode(), 0o600)

    def _moved(self, settings: Settings) -> bool:
        """Whether the VM has had another address than its proxy for a while; unknown is no.

        Not for an address that the configuration names: a reload restarts no proxy.
        """
        old, now = self._running().get("address"), self._clock.now()
        address = self._discovered.get().address
        if not old or old == address or settings.vm.fixed_address:
            self._new_address = ("", 0.0)
            return False
        if self._new_address[0] != address:
            self._new_address = (address, now)
        return now - self._new_address[1] >= SETTLED_S

    def _found(self, name: str) -> str:
        """Also what cannot be read is not ours, and must not keep us from writing our own."""
        try:
            return (self._files.read(f"{RENDERED}/{name}") or b"").decode(errors="replace")
        except LocalFault:
            return ""

    def _running(self) -> Mapping[str, Any]:
        return record.parsed(self._files.read(RUNNING))

    def _publish(self, unit: UnitState) -> None:
        rules = record.parsed(self._files.read(RULES))
        ready = unit.active == "active" and unit.status_text.startswith(READY)
        captured = bool(unit.invocation_id) and rules.get("invocation_id") == unit.invocation_id
        live, words = ready and captured, _words(unit, captured=captured)
        old = self._state.get()
        same = (old.live, old.invocation_id) == (live, unit.invocation_id)
        running = self._running()
        pending = bool(self._digest) and running.get("digest", self._digest) != self._digest
        closed = rules.get("ipv6") == "closed"
        settings = self._settings.get()
        pending = pending or (settings is not None and closed is not settings.closes_ipv6)
        self._state.set(
            ProxyState(
                live=live,
                words=words,
                invocation_id=unit.invocation_id,
                since=old.since if same else self._since(unit, old),
                restart_pending=live and pending,
                mode=str(rules.get("mode", ""))
                + (" + DNS" if rules.get("dns") else "")
                + (", IPv6 closed" if closed else ""),
            )
        )

    def _since(self, unit: UnitState, old: ProxyState) -> float:
        """A proxy that is older than this agent has been live for longer."""
        now, age = self._clock.now(), self._clock.wall() - unit.active_since / 1e6
        return now - age if old == UNSEEN and unit.active_since and 0 < age < now else now


def _words(unit: UnitState, *, captured: bool) -> str:
    if unit.active == "active" and unit.status_text.startswith(READY):
        return "live" if captured else "ready, but the capture rules are not in force"
    if unit.active in ("active", "activating", "deactivating"):
        told = unit.status_text
        return unit.active if told.startswith(READY) else told or unit.active
    return f"{unit.active}{': ' + unit.result if unit.result not in ('', 'success') else ''}"


def _parameters(
    settings: Settings, facts: MeshFacts, machine: Machine, found: Discovered
) -> Mapping[str, Any]:
    """The mapping `p` of templates/*.j2."""
    istio, mesh, proxy = facts.istio, settings.mesh, settings.proxy
    return {
        "instance_ip": found.address,
        "pod_name": machine.name,
        "namespace": settings.workload.namespace,
        "service_account": settings.workload.service_account,
        "workload_name": settings.workload.name,
        "labels": dict(settings.workload.mesh_labels),
        "locality": found.locality,
        "trust_domain": istio.trust_domain,
        "cluster_id": istio.cluster,
        "mesh_id": istio.mesh_id,
        "network": mesh.network or istio.network,
        "revision": mesh.revision or istio.revision,
        "istiod_san": istio.san,
        "discovery": istio.discovery[0],
        "root_ca_path": f"{RENDERED}/{ROOT_CA}",
        "dns_capture": settings.interception.dns_capture,
        "interception_mode": settings.interception.mode.upper(),
        "pilot_agent": proxy.pilot_agent,
        "envoy": proxy.envoy,
        "bootstrap_template": proxy.bootstrap_template,
        "concurrency": proxy.concurrency,
        "proxy_config": {**istio.proxy_config, **proxy.config},
    }


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
