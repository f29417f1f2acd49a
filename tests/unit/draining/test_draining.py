from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from vmoor.cli.drain import concerned
from vmoor.controllers.draining import STATE, Draining
from vmoor.errors import LocalFault, Rejected
from vmoor.model import drain, entry
from vmoor.model.drain import Drained, Order, unseen
from vmoor.ports import Kind
from vmoor.runtime.cell import Cell

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import WALL, Vm, service

ALICE = Order("alice", 100.0)


class Desk:
    """A moored VM of two services and whoever drains it."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.vm = Vm(self.cluster)
        self.vm.serve(service("api", 9090), service("web"))
        self.vm.moor(api=True, web=True)
        self.draining = self.start()

    def start(self) -> Draining:
        return Draining(
            drained=self.vm.drained,
            discovered=self.vm.discovered,
            machine=self.vm.machine,
            files=self.vm.disk,
            clock=self.vm.clock,
        )

    def ask(self, verb: str, service: str = "", who: str = "alice") -> str:
        return self.draining.obey({"verb": verb, "service": service, "who": who})

    def told(self, name: str) -> tuple[str, str]:
        """Status and reason of the entry's condition, after registration's next pass."""
        self.vm.register()
        there = self.cluster.there(Kind.ENTRY, f"{name}.vm1")
        assert there is not None
        health = entry.health(there) or {}
        return health["status"], health["reason"]


def test_a_drained_vm_is_out_with_all_its_services_until_resumed() -> None:
    """Healthy=False with reason Drained; resumed, each says again what its checks say."""
    desk = Desk()
    assert desk.ask("drain") == "drained"
    assert desk.told("web") == desk.told("api") == ("False", "Drained")
    desk.vm.judge(api=False, web=True)
    assert desk.told("api") == ("False", "Drained")
    assert desk.ask("resume") == "resumed"
    assert desk.told("web") == ("True", "Passed")
    assert desk.told("api") == ("False", "CheckFailed")


def test_one_service_can_be_drained_alone() -> None:
    """The other stays in the mesh."""
    desk = Desk()
    desk.ask("drain", "web")
    assert desk.told("web") == ("False", "Drained")
    assert desk.told("api") == ("True", "Passed")
    desk.ask("resume", "web")
    assert desk.told("web") == ("True", "Passed")


def test_a_service_that_is_unknown_to_its_checks_is_drained_too() -> None:
    """At the start of an agent nothing is checked yet, and the drain holds from the first pass."""
    desk = Desk()
    desk.ask("drain")
    desk.vm.verdicts.set({})
    assert desk.told("web") == ("False", "Drained")


def test_the_lease_says_who_drained_the_whole_vm_and_when() -> None:
    """For the reaper, who leaves such a VM alone; a single service is none of its business."""
    desk = Desk()

    def marks() -> dict[str, Any]:
        desk.vm.beat_once()
        there = desk.cluster.there(Kind.LEASE, "vmoor-vm1")
        assert there is not None
        found = dict(there["metadata"]["annotations"])
        return {key: value for key, value in found.items() if key == drain.ANNOTATION}

    assert marks() == {}
    desk.ask("drain", "web")
    assert marks() == {}
    desk.ask("drain")
    said = entry.timestamp(WALL + desk.vm.clock.now())
    assert marks() == {"vmoor.io/drained": f"alice {said}"}
    desk.ask("resume")
    assert marks() == {}


def test_who_drained_first_is_who_drained() -> None:
    """Another one's drain of the same changes nothing."""
    desk = Desk()
    desk.ask("drain")
    first = desk.vm.drained.get()
    desk.vm.clock.pass_by(60)
    desk.ask("drain", who="bob")
    assert desk.vm.drained.get() == first


def test_to_resume_the_vm_leaves_services_that_were_drained_by_themselves() -> None:
    """Whoever drained one of them had a reason of his own; the answer names it."""
    desk = Desk()
    desk.ask("drain", "web")
    desk.ask("drain", who="bob")
    assert desk.ask("resume") == "resumed, but web: vmoor resume --service web"
    assert desk.told("web") == ("False", "Drained")
    assert desk.told("api") == ("True", "Passed")


def test_a_service_of_a_drained_vm_cannot_be_resumed_alone() -> None:
    """It would stay out: the answer says why, and what to do."""
    desk = Desk()
    desk.ask("drain")
    with pytest.raises(Rejected, match="the whole VM is drained by alice") as e:
        desk.ask("resume", "web")
    assert e.value.remedy == "vmoor resume"


@pytest.mark.parametrize(
    ("verb", "name", "who", "words"),
    [
        ("drain", "wbe", "alice", "cannot drain wbe: this VM has no such service, only api, web"),
        ("drain", "", "a\nb", "cannot drain for a b: that is no user's name"),
        ("drain", "", "a" * 65, "that is no user's name"),
        ("drain", None, "alice", "cannot do drain of None"),
        ("reboot", "", "alice", "cannot do reboot of "),
    ],
)
def test_what_cannot_be_done_is_refused(
    verb: str, name: Optional[str], who: str, words: str
) -> None:
    """Nothing changes, and the words say why."""
    desk = Desk()
    with pytest.raises(Rejected) as e:
        desk.draining.obey({"verb": verb, "service": name, "who": who})
    assert words in e.value.message
    assert desk.vm.drained.get() == Drained()


def test_it_survives_a_restart_and_a_reboot() -> None:
    """What is kept holds from before the first pass of registration."""
    desk = Desk()
    desk.ask("drain")
    desk.ask("drain", "web", "bob")
    before = desk.vm.drained.get()
    desk.vm.drained = Cell(Drained())
    desk.start()
    assert desk.vm.drained.get() == before


def test_what_cannot_be_kept_is_not_done() -> None:
    """Nobody is told of a drain that a restart would forget."""
    desk = Desk()

    def full(*_: Any, **__: Any) -> None:
        raise LocalFault("cannot write: no space left")

    desk.vm.disk.write = full  # type: ignore[method-assign]
    with pytest.raises(LocalFault):
        desk.ask("drain")
    assert desk.vm.drained.get() == Drained()


def test_a_clone_is_not_born_drained() -> None:
    """The record is this machine's own."""
    desk = Desk()
    desk.ask("drain")
    kept = json.loads(desk.vm.disk.files[STATE])
    assert drain.recalled(kept, "m1") != Drained()
    assert drain.recalled(kept, "m2") == Drained()


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({"vm": {"who": "a b", "since": 1.0}}, Drained(services={"web": ALICE})),
        ({"vm": {"who": "alice"}}, Drained(services={"web": ALICE})),
        ({"vm": "alice"}, Drained(services={"web": ALICE})),
        ({"services": {"web": None, "A B": vars(ALICE)}}, Drained(ALICE)),
        ({"services": None}, Drained()),
    ],
)
def test_a_damaged_record_gives_what_is_sound(change: dict[str, Any], left: Drained) -> None:
    """What is no order of ours is left out."""
    sound = {"machine": "m1", "vm": vars(ALICE), "services": {"web": vars(ALICE)}}
    assert drain.recalled({**sound, **change}, "m1") == left


OUT = {
    "name": "web",
    "entry_health": "False",
    "listed": False,
    "seen": 9.0,
    "drained": vars(ALICE),
}


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, ""),
        ({"entry_health": "True"}, "the entry of web is not written"),
        ({"listed": True}, "the mesh has not seen web go"),
        ({"seen": None}, "the mesh has not seen web go"),
        ({"listed": None, "seen": None}, ""),
        ({"drained": None}, "the agent has not told of it"),
    ],
)
def test_what_a_drain_waits_for(change: dict[str, Any], left: str) -> None:
    """The entry is written and this VM's own proxy agrees with it; who never was there is gone."""
    document = {"written": 10.0, "services": [{**OUT, **change}]}
    assert unseen(concerned(document, "web", 10.0)) == left


def test_a_drain_waits_for_the_services_that_it_drains() -> None:
    """And for a word of the agent's that is younger than the drain."""
    document = {"written": 10.0, "services": [OUT, {**OUT, "name": "api", "listed": True}]}
    assert concerned(document, "web", 10.0) == [OUT]
    assert unseen(concerned(document, "", 10.0)) == "the mesh has not seen api go"
    assert concerned(document, "web", 10.1) is None
