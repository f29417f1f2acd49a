"""The loop of a source that is a document, pass by pass: of a file, and of a command's output."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from vmoor import errors
from vmoor.adapters.children import Read
from vmoor.config import build
from vmoor.config.settings import FileSource, Settings
from vmoor.controllers import documents
from vmoor.model.discovered import Found
from vmoor.ports import Look
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

from tests.fakes.clock import FakeClock
from tests.fakes.files import FakeFiles

PATH = "/s.json"
KEPT = "/var/lib/vmoor/file.json"
GOOD = Read({"services": {"api": {"port": 90}}})
BROKEN = Read({}, (f"{PATH}:1: not JSON",))
GONE = errors.Unavailable("cannot get it: gone", remedy="bring it back")


def configured(**given: Any) -> Settings:
    document = {
        "vault": {"address": "https://v", "auth": {"method": "approle", "role_id": "r"}},
        "mesh": "secret/mesh",
        "workload": {"namespace": "shop", "name": "web", "service_account": "web"},
        "sources": given,
    }
    return build.settings_from(document)


class World:
    """A VM with one document; it is not ready before `begin`."""

    def __init__(self, disk: Optional[FakeFiles] = None) -> None:
        self.disk = disk or FakeFiles()
        self.clock = FakeClock()
        self.settings: Cell[Optional[Settings]] = Cell(configured(file={"path": PATH}))
        self.found = Cell(Found(ready=False))
        self.version, self.answer = 1, GOOD
        self.away: Optional[errors.VmoorError] = None
        self.fault: Optional[errors.LocalFault] = None
        self.looks = self.judged = 0
        self._controller = documents.Documents(
            "file",
            self._look,
            settings=self.settings,
            found=self.found,
            files=self.disk,
            clock=self.clock,
        )

    def begin(self) -> Settled:
        assert self.turn() == Settled(f"looking at {PATH}", 0.0, waiting=True)
        return self.turn()

    def turn(self) -> Settled:
        return self._controller.reconcile()

    def later(self, seconds: float = 1.0) -> Settled:
        self.clock.advance(seconds)
        return self.turn()

    def change(self, answer: Read) -> Settled:
        self.version, self.answer = self.version + 1, answer
        return self.later()

    def _look(self, source: FileSource) -> Look:
        self.looks += 1
        if self.away:
            raise self.away
        return Look(self.version, self._judge, f"see {source.path}")

    def _judge(self) -> Read:
        self.judged += 1
        if self.fault:
            raise self.fault
        return self.answer

    @property
    def names(self) -> list[str]:
        return [service.name for service in self.found.get().services]


@pytest.fixture
def world() -> World:
    world = World()
    assert world.begin() == Settled(f"1 service of {PATH}", 1.0)
    assert world.names == ["api"]
    return world


def test_not_configured_costs_nothing_and_brings_nothing() -> None:
    world = World()
    world.settings.set(configured())
    assert world.turn() == Settled("not configured", documents.CALM_S, waiting=True)
    assert (world.looks, world.found.get()) == (0, Found())
    world.settings.set(None)
    assert world.turn().waiting


def test_what_does_not_change_is_neither_judged_nor_written(world: World) -> None:
    """A look each period and no more, though other changes ring."""
    world.disk.full = True
    assert world.turn().again == 1.0
    assert world.looks == 1
    for _ in range(3):
        assert world.later() == Settled(f"1 service of {PATH}", 1.0)
    assert (world.looks, world.judged) == (4, 1)


def test_a_change_is_followed(world: World) -> None:
    """The source's name stands on its services."""
    world.change(Read({"services": {"api": {"port": 91}}}))
    (api,) = world.found.get().services
    assert (api.ports, api.source) == ({"http": 91}, "file")
    world.change(Read({"services": {}}))
    assert world.found.get() == Found()


def test_a_wrong_one_is_told_and_the_last_good_one_counts(world: World) -> None:
    """With what to do, in the same words until it is mended, and judged once."""
    told = Settled(f"{PATH}:1: not JSON", 1.0, wrong=True, remedy=f"see {PATH}")
    assert world.change(BROKEN) == told
    assert world.later() == told
    assert (world.names, world.judged) == (["api"], 2)
    assert world.change(Read({}, ("a", "b", "c"))).words == "a (and 2 more)"
    assert world.change(Read({"services": {}})).words == f"0 services of {PATH}"
    assert world.found.get() == Found()


def test_one_that_cannot_be_had_changes_nothing(world: World) -> None:
    """When it is back, unchanged, it is fine without being judged again."""
    world.away = GONE
    told = Settled("cannot get it: gone", 1.0, wrong=True, remedy="bring it back")
    assert world.later() == told
    assert world.names == ["api"]
    world.away = None
    assert world.later() == Settled(f"1 service of {PATH}", 1.0)
    assert world.judged == 1


def test_a_wrong_one_that_comes_back_is_still_wrong(world: World) -> None:
    """Not judged again, and not forgotten."""
    world.change(BROKEN)
    world.away = GONE
    world.later()
    world.away = None
    assert world.later().words == f"{PATH}:1: not JSON"
    assert world.judged == 2


def test_a_fault_of_this_machine_is_told_and_tried_again_later(world: World) -> None:
    """Not each second: a look costs a process."""
    world.fault = errors.LocalFault("cannot run the child")
    assert world.change(BROKEN).again == documents.RETRY_S
    assert world.later().words == "cannot run the child"
    assert (world.names, world.judged) == (["api"], 2)
    world.fault = None
    assert world.later(documents.RETRY_S).words == f"{PATH}:1: not JSON"


def test_a_note_that_cannot_be_written_is_tried_again(world: World) -> None:
    """The services count meanwhile."""
    world.disk.full = True
    told = world.change(Read({"services": {"new": {"port": 1}}}))
    assert (told.wrong, told.words) == (True, f"cannot write {KEPT}: no space left on device")
    assert world.names == ["new"]
    world.disk.full = False
    assert not world.later(documents.RETRY_S).wrong
    assert b"new" in world.disk.content[KEPT]


@pytest.mark.parametrize("trouble", ["away", "broken", "fault"])
def test_after_a_restart_of_ours_the_last_good_one_counts(world: World, trouble: str) -> None:
    """From the first instant on: nothing waits for a look that may take long."""
    after = World(world.disk)
    if trouble == "away":
        after.away = GONE
    if trouble == "fault":
        after.fault = errors.LocalFault("cannot run the child")
    after.answer = BROKEN
    after.turn()
    assert (after.names, after.found.get().ready) == (["api"], True)
    assert after.turn().wrong
    assert after.names == ["api"]


def test_after_a_restart_the_same_document_is_not_written_again(world: World) -> None:
    world.disk.full = True
    assert World(world.disk).begin() == Settled(f"1 service of {PATH}", 1.0)


@pytest.mark.parametrize(
    "note", [b"{", b"[]", b'{"services": 1}', b'{"services": {"a": 1}}', None]
)
def test_without_a_note_the_first_look_counts(note: Optional[bytes]) -> None:
    """Until then the source is not ready, so that nothing of this VM leaves for its sake."""
    world = World()
    if note is None:
        world.disk.unreadable.add(KEPT)
    else:
        world.disk.write(KEPT, note, 0o600)
    world.away = GONE
    world.turn()
    assert world.found.get() == Found(ready=False)
    world.turn()
    assert world.found.get() == Found()


def test_another_source_takes_nothing_away_before_it_is_good(world: World) -> None:
    """A reload with a wrong path, say."""
    world.settings.set(configured(file={"path": "/other"}))
    world.away = GONE
    assert world.turn().words == "looking at /other"
    assert world.turn().wrong
    assert world.names == ["api"]
    world.away, world.answer = None, Read({"services": {}})
    world.later()
    assert world.names == []


def test_what_is_taken_out_is_forgotten(world: World) -> None:
    """It must not come back when a source of this kind is configured again, a year later."""
    world.settings.set(configured())
    assert world.turn().words == "not configured"
    assert (world.found.get(), KEPT in world.disk.content) == (Found(), False)
    world.settings.set(configured(file={"path": PATH}))
    world.begin()
    assert world.names == ["api"]


def test_the_note_is_no_longer_than_the_document() -> None:
    """1 MiB is the most that is read of either."""
    world = World()
    text = "\u00e9" * 5
    kept = {"services": {"a": {"checks": [{"http": {"body": text, "path": "/"}}], "port": 1}}}
    world.answer = Read(kept)
    world.begin()
    written = world.disk.content[KEPT].decode()
    assert json.loads(written) == kept
    assert (text in written, " " in written) == (True, False)
