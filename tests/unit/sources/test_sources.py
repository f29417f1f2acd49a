"""The sources loop, pass by pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import pytest
from vmoor.adapters.children import Read
from vmoor.config import build
from vmoor.config.marker import Text
from vmoor.config.settings import Settings, Sources
from vmoor.controllers import sources
from vmoor.errors import LocalFault
from vmoor.model.discovered import Found
from vmoor.model.proxy import UnitState
from vmoor.runtime.cell import Cell

from tests.fakes.clock import FakeClock
from tests.fakes.files import FakeFiles

WEB = "web.service"
MARK = [Text("/web", "[Unit]\nX-Vmoor-Service=web port=80")]
PATH = "/s.json"


def configured(given: Mapping[str, Any]) -> Settings:
    document = {
        "vault": {"address": "https://v", "auth": {"method": "approle", "role_id": "r"}},
        "mesh": "secret/mesh",
        "workload": {"namespace": "shop", "name": "web", "service_account": "web"},
        "sources": given,
    }
    return build.settings_from(document)


class World:
    """A VM: its unit files, systemd, its listeners and a file."""

    def __init__(self, disk: Optional[FakeFiles] = None, **given: Any) -> None:
        self.disk = disk or FakeFiles()
        self.clock = FakeClock()
        self.settings: Cell[Optional[Settings]] = Cell(configured(given))
        self.states: Cell[Mapping[str, UnitState]] = Cell({})
        self.reloads = Cell(1)
        self.cells = sources.Cells()
        self.files: dict[str, Sequence[Text]] = {WEB: MARK}
        self.scans = 0
        self.ports: set[int] = set()
        self.stamp = 1
        self.answer = Read({"services": {"api": {"port": 90}}})
        self.fault: Optional[LocalFault] = None
        self.reads: list[str] = []
        self._controller = sources.Sources(
            settings=self.settings,
            states=self.states,
            reloads=self.reloads,
            cells=self.cells,
            outside=sources.Outside(
                self._markers,
                lambda: frozenset(self.ports),
                lambda _: self.stamp,
                self._read,
                self.disk,
            ),
            clock=self.clock,
        )

    def look(self) -> float:
        return self._controller.reconcile().again

    def unit(self, active: str, name: str = WEB) -> None:
        self.states.set({**self.states.get(), name: UnitState(name, "loaded", active)})

    def _markers(self) -> Mapping[str, Sequence[Text]]:
        self.scans += 1
        return self.files

    def _read(self, path: str) -> Read:
        self.reads.append(path)
        if self.fault:
            raise self.fault
        return self.answer


def names(cell: Cell[Found]) -> list[str]:
    return [service.name for service in cell.get().services]


def test_without_sources_nothing_is_looked_at() -> None:
    """Neither files nor listeners: no work while nothing is asked for."""
    world = World()
    assert world.look() == sources.CALM_S
    assert (world.scans, world.reads) == (0, [])
    for cell in (world.cells.systemd, world.cells.file, world.cells.sockets):
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


def test_a_file_is_read_when_it_changed() -> None:
    """One child for each change, none while nothing changes."""
    world = World(file={"path": PATH})
    for _ in range(3):
        assert world.look() == sources.LOOK_S
    assert world.reads == [PATH]
    assert (names(world.cells.file), world.cells.file.get().services[0].source) == (
        ["api"],
        "file",
    )
    world.answer, world.stamp = Read({"services": {"api": {"port": 91}}}), 2
    world.look()
    assert world.cells.file.get().services[0].ports == {"http": 91}


def test_a_broken_file_is_told_and_its_last_good_content_kept() -> None:
    """Until it is mended."""
    world = World(file={"path": PATH})
    world.look()
    world.answer, world.stamp = Read({}, (f"{PATH}:1: not JSON",)), 2
    world.look()
    world.look()
    assert names(world.cells.file) == ["api"]
    assert world.cells.file.get().problems == (f"{PATH}:1: not JSON",)
    world.answer, world.stamp = Read({"services": {}}), 3
    world.look()
    assert world.cells.file.get() == Found()


def test_a_fault_here_is_told_and_tried_again_later() -> None:
    """It fails neither what is known nor the other sources."""
    world = World(file={"path": PATH}, sockets={"allow": {"8080": "web"}})
    world.ports = {8080}
    world.look()
    world.fault, world.stamp = LocalFault("cannot run the child"), 2
    world.look()
    world.look()
    assert len(world.reads) == 2
    assert names(world.cells.file) == ["api"]
    assert world.cells.file.get().problems == ("cannot run the child",)
    assert names(world.cells.sockets) == ["web"]
    world.fault = None
    world.clock.advance(sources.RETRY_S)
    world.look()
    assert world.cells.file.get().problems == ()


def test_a_source_that_is_taken_out_brings_nothing_more() -> None:
    """And brings all again when it is back."""
    world = World(file={"path": PATH})
    world.look()
    world.settings.set(configured({}))
    world.look()
    assert world.cells.file.get() == Found()
    world.settings.set(configured({"file": {"path": PATH}}))
    world.look()
    assert names(world.cells.file) == ["api"]
    assert configured({}).sources == Sources()


def test_a_file_that_is_broken_at_a_restart_keeps_what_it_said() -> None:
    """Of the same path; a mess in our own record is as if nothing had been kept."""
    before = World(file={"path": PATH})
    before.look()
    assert names(before.cells.file) == ["api"]
    after = World(before.disk, file={"path": PATH})
    after.answer = Read({}, ("services.json:1: not JSON",))
    after.look()
    assert names(after.cells.file) == ["api"]
    assert after.cells.file.get().problems == ("services.json:1: not JSON",)
    before.disk.write(sources.KEPT, b'{"path": "' + PATH.encode() + b'", "document": 1}', 0o600)
    lost = World(before.disk, file={"path": PATH})
    lost.answer = after.answer
    lost.look()
    assert names(lost.cells.file) == []


def test_a_file_that_cannot_be_read_at_a_restart_keeps_what_it_said() -> None:
    """The child that validates may fail for reasons of this machine."""
    before = World(file={"path": PATH})
    before.look()
    after = World(before.disk, file={"path": PATH})
    after.fault = LocalFault("cannot run vmoor.config.services: out of memory")
    after.look()
    assert names(after.cells.file) == ["api"]
    assert "out of memory" in after.cells.file.get().problems[0]


def test_without_systemd_nothing_is_known_and_nothing_leaves() -> None:
    """D-Bus may be away at our start for as long as it likes."""
    world = World(systemd={})
    world.reloads.set(0)
    world.look()
    world.clock.advance(3600.0)
    world.look()
    assert not world.cells.systemd.get().ready
