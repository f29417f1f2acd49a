"""The loop that looks for who selects a service, pass by pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest
from vmoor.controllers import selectors
from vmoor.errors import Forbidden, VmoorError
from vmoor.model import entry, selection
from vmoor.model.drain import Drained, Order
from vmoor.model.selection import LISTED
from vmoor.model.sight import OVERDUE_S, Sight
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Vm

WEB = "web.vm1"
LISTS = 3  # entries, ServiceEntries, Services


class World(Vm):
    """A moored VM with web, which no list has."""

    def __init__(self) -> None:
        super().__init__(FakeCluster())
        self.selectors = selectors.Selectors(
            settings=self.settings,
            verdicts=self.verdicts,
            drained=self.drained,
            sights=self.sights,
            selections=self.selections,
            machine=self.machine,
            cluster=self.cluster,
            clock=self.clock,
        )
        self.moor()
        web = self.verdicts.get()["web"]
        self.verdicts.set({"web": replace(web, since=self.clock.now())})
        self.sights.set({"web": Sight()})
        self.cluster.calls.clear()

    def look(self) -> float:
        return self.selectors.reconcile().again

    def overdue(self) -> None:
        self.clock.pass_by(OVERDUE_S)

    def lists(self) -> int:
        return [verb for verb, _ in self.cluster.calls].count("list")

    def deny(self) -> None:
        def refuse(verb: str, name: str) -> Optional[VmoorError]:
            return Forbidden("no right") if verb == "list" and not name else None

        self.cluster.refuse = refuse

    def condition(self) -> Optional[tuple[str, str]]:
        there = entry.condition(self.cluster.there(Kind.ENTRY, WEB) or {}, selection.CONDITION)
        return (there["status"], there["message"]) if there else None

    def registered_again(self) -> Optional[tuple[str, str]]:
        self.beat_once()
        self.register()
        return self.condition()


def test_what_is_on_its_way_is_not_looked_for() -> None:
    """A service that has just become healthy, and one that is listed, cost no request."""
    world = World()
    assert world.look() == pytest.approx(OVERDUE_S)
    world.sights.set({"web": Sight(listed=True, agreed=1.0)})
    world.overdue()
    assert world.look() == selectors.CALM_S
    assert world.lists() == 0
    assert world.selections.get() == {"web": LISTED}


def test_it_looks_less_and_less_often() -> None:
    """However often it is woken: a Sidecar may hide it for ever. A change begins anew."""
    world = World()
    world.overdue()
    assert world.look() == selectors.LOOK_S
    world.clock.pass_by(10.0)
    assert world.look() == pytest.approx(selectors.LOOK_S - 10.0)
    assert world.lists() == LISTS
    assert world.selections.get()["web"].reason == "NotSelected"
    world.clock.pass_by(selectors.LOOK_S - 10.0)
    assert world.look() == 2 * selectors.LOOK_S
    assert world.lists() == 2 * LISTS
    for _ in range(10):
        world.clock.pass_by(world.look())
    world.sights.set({})
    world.look()
    world.sights.set({"web": Sight()})
    assert world.look() == selectors.LOOK_S


def test_who_comes_just_after_a_look_does_not_wait_for_the_next() -> None:
    """Those that become unseen within seconds share a look; one that comes back into a list does
    not make another."""
    world = World()
    world.overdue()
    world.look()
    web = world.verdicts.get()["web"]
    begun = world.clock.now() - OVERDUE_S
    world.clock.pass_by(1.0)
    world.verdicts.set({"web": web, "a": replace(web, since=begun + 1)})
    world.sights.set({"web": Sight(), "a": Sight()})
    assert world.look() == pytest.approx(selectors.GATHER_S - 1.0)
    world.clock.pass_by(1.0)
    world.verdicts.set({**world.verdicts.get(), "b": replace(web, since=begun + 2)})
    world.sights.set({"web": Sight(), "a": Sight(), "b": Sight()})
    again = world.look()
    assert world.lists() == LISTS
    world.clock.pass_by(again)
    assert world.look() == selectors.LOOK_S
    assert world.lists() == 2 * LISTS
    world.sights.set({"web": Sight(), "a": Sight(), "b": Sight(listed=True, agreed=1.0)})
    assert world.look() == selectors.LOOK_S
    assert world.lists() == 2 * LISTS


def test_without_the_right_it_tells_what_it_can() -> None:
    """No failure, and it asks again: somebody may grant it."""
    world = World()
    world.deny()
    world.overdue()
    assert world.look() == selectors.LOOK_S
    assert world.selections.get()["web"].reason == "NotListed"
    world.cluster.refuse = lambda _verb, _name: None
    world.clock.pass_by(selectors.LOOK_S)
    world.look()
    assert world.selections.get()["web"].reason == "NotSelected"


def test_a_sick_service_is_not_looked_for() -> None:
    """It is in no list for a good reason."""
    world = World()
    world.judge(web=False)
    world.overdue()
    world.look()
    assert world.lists() == 0
    assert world.selections.get() == {}


def test_the_owner_of_the_mesh_reads_it_in_the_entry() -> None:
    """A condition beside Healthy and those of others; it turns True when the proxy lists it."""
    world = World()
    world.cluster.edit(
        Kind.ENTRY, WEB, lambda thing: thing["status"]["conditions"].append({"type": "Other"})
    )
    world.watch()
    assert world.registered_again() is None
    world.overdue()
    world.look()
    told = world.selections.get()["web"]
    assert world.registered_again() == ("False", f"web {told.words}: {told.remedy}")
    thing = world.cluster.there(Kind.ENTRY, WEB)
    assert thing is not None
    types = sorted(c["type"] for c in thing["status"]["conditions"])
    assert types == ["Healthy", "Other", selection.CONDITION]
    world.cluster.calls.clear()
    world.registered_again()
    assert ("status", WEB) not in world.cluster.calls
    world.sights.set({"web": Sight(listed=True, agreed=1.0)})
    world.look()
    assert world.registered_again() == ("True", "web is listed by its own VM's proxy")


def test_a_service_that_was_always_listed_has_no_condition() -> None:
    """That all is well costs no write."""
    world = World()
    world.sights.set({"web": Sight(listed=True, agreed=1.0)})
    world.look()
    assert world.registered_again() is None


def test_a_drained_service_is_not_looked_for() -> None:
    """It is in no list because somebody took it out."""
    world = World()
    world.drained.set(Drained(services={"web": Order("alice", 1.0)}))
    world.overdue()
    assert world.look() == selectors.CALM_S
    assert world.lists() == 0
