"""The sources loop, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import pytest
from vmoor.config import build
from vmoor.config.marker import Text
from vmoor.config.settings import Settings
from vmoor.controllers import sources
from vmoor.errors import LocalFault
from vmoor.model.discovered import Found
from vmoor.model.proxy import UnitState
from vmoor.runtime.cell import Cell

from tests.fakes.clock import FakeClock

WEB = "web.service"
MARK = [Text("/web", "[Unit]\nX-Vmoor-Service=web port=80")]


def configured(given: Mapping[str, Any]) -> Settings:
    document = {
        "vault": {"address": "https://v", "auth": {"method": "approle", "role_id": "r"}},
        "mesh": "secret/mesh",
        "workload": {"namespace": "shop", "name": "web", "service_account": "web"},
        "sources": given,
    }
    return build.settings_from(document)


class World:
    """A VM: its unit files, systemd and its listeners."""

    def __init__(self, **given: Any) -> None:
        self.clock = FakeClock()
        self.settings: Cell[Optional[Settings]] = Cell(configured(given))
        self.states: Cell[Mapping[str, UnitState]] = Cell({})
        self.reloads = Cell(1)
        self.cells = sources.Cells()
        self.files: dict[str, Sequence[Text]] = {WEB: MARK}
        self.scans = 0
        self.ports: set[int] = set()
        self.fault: Optional[LocalFault] = None
        self._controller = sources.Sources(
            settings=self.settings,
            states=self.states,
            reloads=self.reloads,
            cells=self.cells,
            outside=sources.Outside(self._markers, self._listening),
            clock=self.clock,
        )

    def look(self) -> float:
        return self._controller.reconcile().again

    def unit(self, active: str, name: str = WEB) -> None:
        self.states.set({**self.states.get(), name: UnitState(name, "loaded", active)})

    def _markers(self) -> Mapping[str, Sequence[Text]]:
        self.scans += 1
        return self.files

    def _listening(self) -> frozenset[int]:
        if self.fault:
            raise self.fault
        return frozenset(self.ports)


def names(cell: Cell[Found]) -> list[str]:
    return [service.name for service in cell.get().services]


def test_without_sources_nothing_is_looked_at() -> None:
    """Neither files nor listeners: no work while nothing is asked for."""
    world = World()
    assert world.look() == sources.CALM_S
    assert world.scans == 0
    for cell in (world.cells.systemd, world.cells.sockets):
        assert cell.get() == Found()


@pytest.mark.parametrize(
    ("active", "there"),
    [
        ("active", True),
        ("reloading", True),
        ("activating", True),  # also while it waits for its automatic restart
        ("deactivating", True),
        ("failed", True),
        ("inactive", False),
    ],
)
def test_a_units_services_are_there_until_it_is_stopped(active: str, there: bool) -> None:
    """A crashed one stays, unhealthy by its unit check: its entry is not to be forgotten."""
    world = World(systemd={})
    world.unit(active)
    assert world.look() == sources.CALM_S
    assert names(world.cells.systemd) == (["web"] if there else [])
    assert world.cells.systemd.get().units == (WEB,)


def test_unit_files_are_read_after_a_reload_only() -> None:
    """Not for each signal of a unit."""
    world = World(systemd={})
    world.unit("active")
    world.look()
    world.unit("failed")
    world.look()
    assert world.scans == 1
    world.files = {}
    world.reloads.set(2)
    world.look()
    assert world.scans == 2
    assert world.cells.systemd.get() == Found()


def test_patterns_narrow_and_a_template_is_no_unit() -> None:
    """What a marker in a template would mean cannot be followed: told."""
    world = World(systemd={"units": ["shop-*.service"]})
    world.files = {WEB: MARK, "shop-a.service": MARK, "shop-@.service": MARK}
    world.unit("active")
    world.unit("active", "shop-a.service")
    world.look()
    found = world.cells.systemd.get()
    assert [service.unit for service in found.services] == ["shop-a.service"]
    assert found.problems == ("/web: write X-Vmoor-Service to a drop-in of an instance",)
    assert "systemctl daemon-reload" in found.remedy


def test_it_is_not_ready_before_the_units_are_known() -> None:
    """Else an agent's restart would take them out; after ten seconds what is known counts."""
    world = World(systemd={})
    assert world.look() == sources.LOOK_S
    found = world.cells.systemd.get()
    assert (found.ready, found.units) == (False, (WEB,))
    world.clock.advance(sources.PATIENCE_S)
    world.look()
    assert world.cells.systemd.get().ready


def test_once_ready_it_stays_so() -> None:
    """A unit that is installed while the agent runs holds nothing up."""
    world = World(systemd={})
    world.files = {}
    world.look()
    world.files = {WEB: MARK}
    world.reloads.set(2)
    world.look()
    assert world.cells.systemd.get() == Found(units=(WEB,))


def test_a_port_is_a_service_while_something_listens() -> None:
    """Two looks without a listener until it leaves; what is not allowed is never one."""
    world = World(sockets={"allow": {"8080": "web", "9090": {"name": "api", "weight": 3}}})
    world.ports = {8080, 9090, 22}
    assert world.look() == sources.LOOK_S
    assert names(world.cells.sockets) == ["web", "api"]
    web, api = world.cells.sockets.get().services
    assert (web.source, web.checks[0].name, api.weight) == ("sockets", "tcp 8080", 3)
    world.ports = {9090}
    world.look()
    assert names(world.cells.sockets) == ["web", "api"]
    world.look()
    assert names(world.cells.sockets) == ["api"]


def test_without_systemd_nothing_is_known_and_nothing_leaves() -> None:
    """D-Bus may be away at our start for as long as it likes."""
    world = World(systemd={})
    world.reloads.set(0)
    world.look()
    world.clock.advance(3600.0)
    world.look()
    assert not world.cells.systemd.get().ready


def test_a_port_that_moves_is_followed() -> None:
    """The marker was edited and systemd told: the same service, elsewhere."""
    world = World(systemd={})
    world.unit("active")
    world.look()
    world.files = {WEB: [Text("/web", "[Unit]\nX-Vmoor-Service=web port=81")]}
    world.reloads.set(2)
    world.look()
    (web,) = world.cells.systemd.get().services
    assert (web.name, web.ports) == ("web", {"http": 81})


def test_an_escaped_name_is_the_units_own() -> None:
    """It is never unescaped: systemd tells the state of exactly this name."""
    name = "my\\x2dapp@a\\x20b.service"
    world = World(systemd={"units": ["my\\x2dapp@*.service"]})
    world.files = {name: MARK}
    world.unit("active", name)
    world.look()
    (web,) = world.cells.systemd.get().services
    assert (web.unit, world.cells.systemd.get().units) == (name, (name,))


def test_listeners_that_cannot_be_told_take_nothing_with_them() -> None:
    """Neither what was found before nor the units."""
    world = World(systemd={}, sockets={"allow": {"8080": "web"}})
    world.files, world.ports = {}, {8080}
    world.look()
    world.fault = LocalFault("cannot read /proc/self/net/tcp", remedy="mount it")
    assert world.look() == sources.LOOK_S
    found = world.cells.sockets.get()
    assert (names(world.cells.sockets), found.remedy) == (["web"], "mount it")
    assert found.problems == ("cannot read /proc/self/net/tcp",)
    assert world.cells.systemd.get() == Found()
