from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

import pytest
from vmoor.config.settings import (
    AppRole,
    Interception,
    MeshSource,
    Settings,
    VaultSettings,
    VmSettings,
)
from vmoor.controllers import proxy
from vmoor.errors import LocalFault, Unavailable
from vmoor.model.credential import Credential, Credentials
from vmoor.model.discovered import Discovered
from vmoor.model.facts import IstioFacts, KubernetesFacts, MeshFacts
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState, UnitState
from vmoor.model.secret import Secret
from vmoor.model.service import Workload
from vmoor.runtime.cell import Cell

SETTINGS = Settings(
    vault=VaultSettings(addresses=("https://vault.example:8200",), auth=AppRole(role_id="r")),
    mesh=MeshSource(kv_mount="secret", kv_path="vmoor/mesh-a"),
    workload=Workload("shop", "web", "web"),
)


def credentials(istio: str = "istio", root: str = "ROOT", revision: str = "") -> Credentials:
    def token(text: str) -> Credential:
        return Credential(Secret(text), 0.0, 1e12, 1)

    return Credentials(
        MeshFacts(
            KubernetesFacts(("https://198.18.0.1:6443",), "CA"),
            IstioFacts(("198.18.0.1:15012",), "istiod.rig", root, revision=revision),
        ),
        api=token("api"),
        istio=token(istio),
    )


class Systemd:
    def __init__(self) -> None:
        self.states = {proxy.UNIT: UnitState(proxy.UNIT, load="loaded")}
        self.calls: list[str] = []

    def state(self, name: str) -> UnitState:
        return self.states.get(name, UnitState(name))

    def start(self, name: str) -> None:
        self.calls.append(f"start {name}")

    def restart(self, name: str) -> None:
        self.calls.append(f"restart {name}")

    def stop(self, name: str) -> None:
        self.calls.append(f"stop {name}")


class Disk:
    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.modes: dict[str, int] = {}
        self.writes: list[str] = []

    def read(self, path: str) -> Optional[bytes]:
        return self.content.get(path)

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        self.content[path] = content
        self.modes[path] = mode
        self.writes.append(path)


class Clock:
    def __init__(self) -> None:
        self.seconds = 50.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return 50.0


class World:
    """A VM as far as the proxy controller touches it; `agent()` is a fresh agent on it."""

    def __init__(self) -> None:
        self.systemd, self.disk, self.clock = Systemd(), Disk(), Clock()
        self.rendered: list[Mapping[str, Any]] = []
        self.absent: set[str] = set()
        self.settings: Cell[Optional[Settings]] = Cell(SETTINGS)
        self.credentials: Cell[Optional[Credentials]] = Cell(credentials())
        self.state = Cell(ProxyState())
        self.discovered = Cell(Discovered(address="198.18.0.11"))
        self.controller = self.agent()

    def agent(self) -> proxy.Proxy:
        return proxy.Proxy(
            settings=self.settings,
            credentials=self.credentials,
            discovered=self.discovered,
            machine=Machine("vm-1", "hash", "boot"),
            state=self.state,
            units=self.systemd,  # type: ignore[arg-type]
            files=self.disk,  # type: ignore[arg-type]
            clock=self.clock,
            render=self.render,
            missing=self.absent.__contains__,
        )

    def render(self, parameters: Mapping[str, Any]) -> Mapping[str, str]:
        self.rendered.append(parameters)
        return {"proxy.env": json.dumps(parameters), "mesh.yaml": "defaultConfig: {}\n"}

    def unit(self, active: str, status: str = "", invocation: str = "i1") -> None:
        self.systemd.states[proxy.UNIT] = UnitState(
            proxy.UNIT, "loaded", active, "running", 9, invocation, status, "success"
        )

    def rules(self, invocation: str, **more: str) -> None:
        rules = {"invocation_id": invocation, "mode": "redirect", "dns": True, **more}
        self.disk.content[proxy.RULES] = json.dumps(rules).encode()


@pytest.fixture
def world() -> World:
    return World()


def test_stopped_proxy_is_started_with_its_files_in_place(world: World) -> None:
    """The unit is started only after its environment, root and token were written."""
    world.controller.reconcile()
    assert world.systemd.calls == [f"start {proxy.UNIT}"]
    assert world.disk.content["/run/vmoor-proxy/istio-token"] == b"istio"
    assert world.disk.modes["/run/vmoor-proxy/istio-token"] == 0o640


def test_live_needs_the_capture_rules_of_this_very_start(world: World) -> None:
    """A ready proxy whose capture rules are another start's does not count as live."""
    world.unit("active", "ready", "i2")
    world.rules("i1")
    world.controller.reconcile()
    assert not world.state.get().live
    world.rules("i2")
    world.controller.reconcile()
    assert world.state.get().live
    assert world.state.get().mode == "redirect + DNS"


def test_live_ends_with_the_readiness(world: World) -> None:
    """Readiness is live, never latched."""
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.unit("active", "not ready: 503")
    world.controller.reconcile()
    assert not world.state.get().live


def test_a_restarted_agent_knows_how_long_the_proxy_lives(world: World) -> None:
    """As systemd tells it; a proxy that starts while we look is as old as what we saw."""
    world.clock.seconds = 500.0
    world.unit("active", "ready")
    since = int((world.clock.wall() - 40.0) * 1e6)
    world.systemd.states[proxy.UNIT] = replace(
        world.systemd.states[proxy.UNIT], active_since=since
    )
    world.rules("i1")
    world.controller.reconcile()
    assert world.state.get().since == pytest.approx(460.0)
    world.clock.seconds = 600.0
    world.unit("active", "not ready: 503")
    world.controller.reconcile()
    assert world.state.get().since == 600.0


def test_new_token_is_written_and_nothing_restarted(world: World) -> None:
    """pilot-agent reads the token on each RPC: a new one is a file, never a restart."""
    world.unit("active", "ready")
    world.controller.reconcile()
    world.credentials.set(credentials(istio="istio-2"))
    world.controller.reconcile()
    assert world.disk.content["/run/vmoor-proxy/istio-token"] == b"istio-2"
    assert world.systemd.calls == []


def test_changed_facts_wait_for_the_operator(world: World) -> None:
    """A changed environment is told as pending; the running proxy is left alone."""
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.credentials.set(credentials(revision="canary"))
    world.controller.reconcile()
    assert world.state.get().restart_pending
    assert world.systemd.calls == []


def test_ipv6_that_is_not_as_configured_waits_for_a_restart(world: World) -> None:
    """Closed or opened by a reload, and also if the hook could not close it."""
    world.controller.reconcile()
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    assert not world.state.get().restart_pending
    world.settings.set(replace(SETTINGS, interception=Interception(ipv6="closed")))
    world.controller.reconcile()
    assert world.state.get().restart_pending
    world.rules("i1", ipv6="closed")
    world.controller.reconcile()
    assert not world.state.get().restart_pending
    assert world.state.get().mode == "redirect + DNS, IPv6 closed"
    world.settings.set(SETTINGS)
    world.controller.reconcile()
    assert world.state.get().restart_pending


def test_new_agent_finds_what_the_running_proxy_was_started_with(world: World) -> None:
    """An agent restart neither forgets that a restart is pending nor invents one."""
    world.controller.reconcile()
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.agent().reconcile()
    assert not world.state.get().restart_pending


def test_steady_state_writes_and_renders_nothing(world: World) -> None:
    """No work while nothing changes."""
    world.unit("active", "ready")
    world.controller.reconcile()
    before = (len(world.disk.writes), len(world.rendered))
    world.controller.reconcile()
    assert (len(world.disk.writes), len(world.rendered)) == before


def test_a_proxy_started_before_its_agent_runs_with_the_old_files(world: World) -> None:
    """Files that a new agent renders are not taken for what a running proxy has read."""
    world.controller.reconcile()
    world.unit("active", "ready", "i2")  # started while no agent looked
    world.rules("i2")
    world.credentials.set(credentials(revision="canary"))
    world.agent().reconcile()
    world.agent().reconcile()
    assert world.state.get().restart_pending


def test_another_address_restarts_the_proxy_once(world: World) -> None:
    """It would get no inbound side for the new address; one that comes and goes does not."""
    world.controller.reconcile()
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.discovered.set(Discovered(address="198.18.0.12"))
    world.controller.reconcile()
    assert world.systemd.calls[1:] == []
    world.discovered.set(Discovered(address="198.18.0.11"))
    world.controller.reconcile()
    world.discovered.set(Discovered(address="198.18.0.12"))
    world.controller.reconcile()
    world.clock.seconds += proxy.SETTLED_S - 0.1
    world.controller.reconcile()
    assert world.systemd.calls[1:] == []
    world.clock.seconds += 0.1
    assert world.controller.reconcile().waiting
    assert world.systemd.calls[1:] == [f"restart {proxy.UNIT}"]
    assert json.loads(world.disk.content["/run/vmoor-proxy/proxy.env"])["instance_ip"] == (
        "198.18.0.12"
    )
    world.unit("active", "ready", "i2")
    world.rules("i2")
    world.controller.reconcile()
    world.agent().reconcile()
    assert world.systemd.calls[1:] == [f"restart {proxy.UNIT}"]


@pytest.mark.parametrize(("address", "restarts"), [("198.18.0.11", 0), ("cloud-public", 1)])
def test_only_an_address_that_was_found_out_restarts_the_proxy(
    world: World, address: str, restarts: int
) -> None:
    """A changed line of the configuration waits for its administrator, the cloud's change not."""
    world.settings.set(replace(SETTINGS, vm=VmSettings(address=address)))
    world.controller.reconcile()
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.discovered.set(Discovered(address="198.18.0.12"))
    world.controller.reconcile()
    world.clock.seconds += proxy.SETTLED_S
    world.controller.reconcile()
    assert len(world.systemd.calls[1:]) == restarts


def test_a_proxy_of_an_older_agent_is_left_alone(world: World) -> None:
    """A note that names no address is no proof of another one: an upgrade restarts nothing."""
    world.controller.reconcile()
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    note = json.loads(world.disk.content[proxy.RUNNING])
    del note["address"]
    world.disk.content[proxy.RUNNING] = json.dumps(note).encode()
    world.discovered.set(Discovered(address="198.18.0.12"))
    world.controller.reconcile()
    assert world.systemd.calls[1:] == []


def test_rival_unit_is_told_with_the_command(world: World) -> None:
    """Istio's own unit must not run beside ours; the remedy is the command to type."""
    world.systemd.states[proxy.RIVAL] = UnitState(proxy.RIVAL, "loaded", "active")
    with pytest.raises(LocalFault) as told:
        world.controller.reconcile()
    assert "systemctl disable --now istio" in told.value.remedy


def test_missing_binary_is_told_with_its_path(world: World) -> None:
    """Without pilot-agent the step says which file is missing and starts nothing."""
    world.absent.add("/usr/local/bin/pilot-agent")
    with pytest.raises(LocalFault, match="/usr/local/bin/pilot-agent is not there"):
        world.controller.reconcile()
    assert world.systemd.calls == []


def test_a_start_without_end_names_istiod(world: World) -> None:
    """It waits at first; after ten seconds the step fails, with istiod's address."""
    world.unit("activating", "starting: Envoy does not listen")
    assert world.controller.reconcile().waiting
    world.clock.seconds += proxy.SLOW_S
    istiod = credentials().facts.istio.discovery[0]
    with pytest.raises(Unavailable, match="Envoy does not listen") as told:
        world.controller.reconcile()
    assert f"istiod at {istiod}" in told.value.remedy


def test_lost_credentials_leave_the_proxy_alone(world: World) -> None:
    """Vault gone for long: the proxy runs on and stays live."""
    world.unit("active", "ready")
    world.rules("i1")
    world.controller.reconcile()
    world.credentials.set(None)
    world.controller.reconcile()
    assert world.state.get().live
    assert world.systemd.calls == []
