from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest
from vmoor.config.settings import Settings
from vmoor.controllers.hooks import Hooks
from vmoor.model.drain import Drained, Order
from vmoor.model.entry import EntryState
from vmoor.model.health import Probe
from vmoor.model.sight import Sight
from vmoor.runtime.cell import Cell
from vmoor.runtime.lazy import Lazy
from vmoor.runtime.loop import Settled

from tests.fakes.clock import FakeClock
from tests.fakes.envoy import FakeEnvoy
from tests.fakes.files import FakeFiles
from tests.unit.registration.world import settings
from tests.unit.status.test_status import GOOD

HOOKS = {"moored": ("/bin/in",), "drained": ("/bin/out",)}
ALICE, SPOT = Order("alice", 100.0), Order("AWS spot notice", 200.0)
OUT = (EntryState("web", "web.i-0abc", "registered", "False"),)
SEEN = {"web": Sight(listed=False, agreed=60.0)}


class World:
    """A VM that is not moored yet, and its hooks."""

    def __init__(self, before: Optional[World] = None, boot: str = "b1") -> None:
        self.settings: Cell[Optional[Settings]] = Cell(replace(settings(), hooks=HOOKS))
        self.snap = replace(GOOD, credentials=False)
        self.envoy = FakeEnvoy()
        self.disk = before.disk if before else FakeFiles()
        self.clock = FakeClock()
        self.ran: list[tuple[str, str]] = []
        self.probe = Probe(passed=True, words="fine")
        self.hooks = Hooks(
            settings=self.settings, snapshot=lambda: self.snap, run=self._run,
            envoy=self.envoy, boot_id=boot, files=self.disk, clock=self.clock,
        )  # fmt: skip

    def _run(self, name: str, reason: str) -> Probe:
        self.ran.append((name, reason))
        return self.probe

    def turn(self) -> Settled:
        return self.hooks.reconcile()

    def moor(self) -> World:
        self.snap = GOOD
        self.turn()
        self.ran.clear()
        return self

    def drain(self, drained: Drained) -> None:
        """As the cells are when the mesh has seen it."""
        self.snap = replace(GOOD, drained=drained, entries=OUT, sights=SEEN)


def test_a_vm_that_is_moored_tells_it_once() -> None:
    """Not before, and not again however often it is looked at."""
    world = World()
    assert world.turn().words == "not moored"
    assert world.ran == []
    world.snap = GOOD
    for _ in range(3):
        world.turn()
    assert world.ran == [("moored", "")]


def test_a_wish_that_comes_and_goes_repeats_no_other() -> None:
    """Alice drains, the cloud gives notice and takes it back: alice's still stands, and is told
    once; a restart knows that, too."""
    world = World().moor()
    world.drain(Drained(vm=ALICE))
    world.turn()
    world.drain(Drained(vm=SPOT))
    world.turn()
    world = World(before=world)
    world.drain(Drained(vm=ALICE))
    world.turn()
    assert world.ran == []


def test_a_drain_that_is_complete_is_told_once() -> None:
    """With who wanted it; when that ends and the VM is moored again, that is told too."""
    world = World().moor()
    world.drain(Drained(vm=ALICE))
    for _ in range(3):
        world.turn()
    assert world.ran == [("drained", "alice")]
    world.snap = replace(GOOD, entries=OUT)
    world.turn()
    assert world.ran == [("drained", "alice")]
    world.snap = GOOD
    world.turn()
    assert world.ran == [("drained", "alice"), ("moored", "")]


def test_it_is_complete_when_written_seen_and_nothing_is_open() -> None:
    """One after the other; until then it looks again ten times a second."""
    world = World().moor()
    world.snap = replace(GOOD, drained=Drained(vm=ALICE))
    assert world.turn() == Settled("draining: the entry of web is not written", 0.1, waiting=True)
    world.snap = replace(world.snap, entries=OUT)
    assert world.turn().words == "draining: the mesh has not seen web go"
    world.snap = replace(world.snap, sights=SEEN)
    world.envoy.open = [2, 1, 0]
    assert world.turn().words == "draining: 2 requests open"
    assert world.turn().words == "draining: 1 request open"
    assert world.ran == []
    world.turn()
    assert world.ran == [("drained", "alice")]


def test_what_does_not_end_is_waited_for_no_longer_than_a_leave_would() -> None:
    """drain.timeout; then it is told with what is open."""
    world = World().moor()
    world.drain(Drained(vm=ALICE))
    world.envoy.open = [1]
    world.turn()
    world.clock.advance(29.9)
    world.turn()
    assert world.ran == []
    world.clock.advance(0.1)
    world.turn()
    assert world.ran == [("drained", "alice")]


def test_another_reason_is_told_too(caplog: pytest.LogCaptureFixture) -> None:
    """A scale-in of a VM that somebody drained long before has an action to complete."""
    world = World().moor()
    world.drain(Drained(vm=ALICE))
    world.turn()
    world.drain(Drained(vm=ALICE, notice=SPOT))
    world.turn()
    world.turn()
    assert world.ran == [("drained", "alice"), ("drained", "AWS spot notice")]


def test_a_service_that_is_drained_alone_is_nobodys_business() -> None:
    """The VM is moored."""
    world = World().moor()
    world.drain(Drained(services={"web": ALICE}))
    world.turn()
    assert world.ran == []


def test_a_restart_of_the_agent_tells_nothing_again() -> None:
    """Neither that it is moored nor that it is drained; over a reboot that it is drained."""
    first = World().moor()
    second = World(first)
    second.snap = GOOD
    second.turn()
    assert second.ran == []
    second.drain(Drained(vm=ALICE))
    second.turn()
    for boot in ("b1", "b2"):
        third = World(second, boot)
        third.drain(Drained(vm=ALICE))
        third.turn()
        assert third.ran == []


def test_nothing_is_told_before_the_cloud_was_heard() -> None:
    """At a restart of the agent the notice that was told is not there yet; it is none the less."""
    first = World().moor()
    first.drain(Drained(vm=ALICE, notice=SPOT))
    first.turn()
    again = World(first)
    for drained in (Drained(hold=True), Drained(vm=ALICE, hold=True)):
        again.drain(drained)
        assert again.turn().waiting
    again.drain(Drained(vm=ALICE, notice=SPOT))
    again.turn()
    assert again.ran == []


def test_a_boot_is_moored_anew() -> None:
    """Whatever watched the machine start waits for this."""
    again = World(World().moor(), "b2")
    again.snap = GOOD
    again.turn()
    assert again.ran == [("moored", "")]


def test_a_hook_that_fails_is_told_and_nothing_follows(caplog: pytest.LogCaptureFixture) -> None:
    """It does not run again by itself, and no step fails for it."""
    world = World()
    world.snap, world.probe = GOOD, Probe(passed=False, words="exit 3: no way")
    assert world.turn() == Settled("moored", 0.0)
    assert world.turn() == Settled("moored", 300.0)
    assert world.ran == [("moored", "")]
    assert "hooks.moored failed: /bin/in: exit 3: no way" in caplog.text


def test_only_what_is_configured_runs() -> None:
    """One hook without the other, and none at all."""
    world = World()
    world.settings.set(replace(settings(), hooks={"drained": ("/bin/out",)}))
    world.snap = GOOD
    world.turn()
    assert world.ran == []
    world.settings.set(settings())
    assert world.turn().waiting


def test_what_nobody_wants_is_not_made() -> None:
    """Until it is configured; then it stays."""
    wanted: list[int] = []
    made: list[int] = []

    def make() -> FakeWork:
        made.append(1)
        return FakeWork()

    class FakeWork:
        def __call__(self) -> Settled:
            return Settled("works", 1.0)

    lazy = Lazy(lambda: bool(wanted), make)
    assert lazy.reconcile().waiting
    assert made == []
    wanted.append(1)
    for _ in range(2):
        assert lazy.reconcile() == Settled("works", 1.0)
    wanted.clear()
    assert lazy.reconcile() == Settled("works", 1.0)
    assert made == [1]
