from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Optional

import pytest
from vmoor.config.settings import Leave, Settings
from vmoor.controllers.draining import Draining
from vmoor.controllers.notices import UNHEARD_S, Notices
from vmoor.errors import LocalFault, Rejected, Unavailable
from vmoor.model import drain, entry, notice
from vmoor.model.drain import Order
from vmoor.model.notice import Notice
from vmoor.ports import Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Vm, settings

SPOT = Notice("AWS spot notice", "terminate at 18:02")
WARM = Notice("AWS warm pool", "Warmed:Running", hold=True)


class Sky:
    """A VM whose cloud says what the test wants; it heard nothing of it yet."""

    def __init__(self, cloud: str = "aws", told: str = "", vm: Optional[Vm] = None) -> None:
        self.cluster = FakeCluster() if vm is None else vm.cluster
        self.vm = Vm(self.cluster) if vm is None else vm
        self.settings: Cell[Optional[Settings]] = Cell(self.configured(cloud))
        self.told: Any = told
        self.says: Optional[Notice] = None
        self.away = False
        self.connected: list[tuple[str, str]] = []
        self.draining = Draining(
            drained=self.vm.drained, discovered=self.vm.discovered, machine=self.vm.machine,
            files=self.vm.disk, clock=self.vm.clock, hold=True,
        )  # fmt: skip
        self.notices = Notices(
            settings=self.settings, told=self._told, connect=self._connect,
            hear=self.draining.hear, clock=self.vm.clock,
        )  # fmt: skip

    @staticmethod
    def configured(cloud: str) -> Settings:
        return replace(settings(), leave=Leave(notices=cloud))

    period = 5.0

    def look(self) -> Optional[Notice]:
        if self.away:
            raise Unavailable("cannot reach http://169.254.169.254: connection refused")
        return self.says

    def close(self) -> None:
        pass

    def _told(self) -> str:
        if isinstance(self.told, Exception):
            raise self.told
        return str(self.told)

    def _connect(self, cloud: str, url: str) -> Sky:
        self.connected.append((cloud, url))
        return self

    def hear(self, says: Optional[Notice] = None) -> Settled:
        self.says = says
        return self.notices.reconcile()

    def entry(self) -> tuple[str, str]:
        """Status and reason of the entry after registration's next pass, "none" without one."""
        self.vm.register()
        there = self.cluster.there(Kind.ENTRY, "web.vm1")
        health = (entry.health(there) if there else None) or {}
        return (health["status"], health["reason"]) if there else ("none", "")


def moored() -> Sky:
    sky = Sky()
    sky.hear()
    sky.vm.moor(web=True)
    assert sky.entry() == ("True", "Passed")
    return sky


def test_a_notice_drains_the_vm_until_it_is_taken_back() -> None:
    """Out, with the cloud as who wanted it, and back by itself."""
    sky = moored()
    settled = sky.hear(SPOT)
    assert settled == Settled("AWS spot notice: terminate at 18:02", 5.0)
    assert sky.entry() == ("False", "Drained")
    there = sky.cluster.there(Kind.ENTRY, "web.vm1")
    assert there is not None
    assert (entry.health(there) or {})["message"] == "drained by AWS spot notice"
    sky.hear()
    assert sky.entry() == ("True", "Passed")


def test_a_notice_that_stands_is_the_same_order() -> None:
    """Whoever looks when it came sees the first time."""
    sky = moored()
    sky.hear(SPOT)
    first = sky.vm.drained.get()
    sky.vm.clock.pass_by(60)
    sky.hear(SPOT._replace(words="terminate at 18:03"))
    assert sky.vm.drained.get() == first


def test_metadata_that_do_not_answer_change_nothing() -> None:
    """Neither into the mesh nor out of it."""
    for says, health in ((None, "True"), (SPOT, "False")):
        sky = moored()
        sky.hear(says)
        sky.away = True
        sky.vm.clock.pass_by(3600)
        sky.vm.beat_once()
        with pytest.raises(Unavailable):
            sky.hear()
        assert sky.entry()[0] == health


def test_nothing_enters_the_mesh_before_the_cloud_was_heard() -> None:
    """A VM of a warm pool makes no entry, not even one that is out; in service it registers."""
    sky = Sky()
    sky.vm.moor(web=True)
    assert sky.entry() == ("none", "")
    sky.hear(WARM)
    assert sky.entry() == ("none", "")
    sky.hear()
    assert sky.entry() == ("True", "Passed")


def test_a_vm_that_returns_to_its_warm_pool_is_out() -> None:
    """What it registered stays, out of the mesh."""
    sky = moored()
    sky.hear(WARM)
    assert sky.entry() == ("False", "Drained")


def test_a_restart_of_the_agent_harms_nobody_before_the_cloud_was_heard() -> None:
    """What is in the mesh stays in it, what is out stays out until the same notice is read."""
    sky = moored()
    again = Sky(vm=sky.vm)
    assert again.entry() == ("True", "Passed")
    again.hear(SPOT)
    assert again.entry() == ("False", "Drained")
    once_more = Sky(vm=sky.vm)
    assert once_more.entry() == ("False", "Drained")


def test_a_vm_whose_metadata_never_answer_moors_after_a_while() -> None:
    """Ten seconds and a look: a link-local address answers at once, or not at all."""
    sky = Sky()
    sky.vm.moor(web=True)
    sky.away = True
    with pytest.raises(Unavailable):
        sky.hear()
    assert sky.entry() == ("none", "")
    sky.vm.clock.pass_by(UNHEARD_S)
    sky.vm.beat_once()
    with pytest.raises(Unavailable):
        sky.hear()
    assert sky.entry() == ("True", "Passed")


def test_auto_is_the_cloud_that_cloud_init_names() -> None:
    """One of those that give notice; else nothing is asked and the VM moors."""
    assert Sky("auto", "azure").hear() == Settled("none of azure", 5.0)
    sky = Sky("auto", "openstack")
    sky.vm.moor(web=True)
    assert sky.hear().waiting
    assert sky.connected == []
    assert sky.entry() == ("True", "Passed")


def test_a_cloud_that_cannot_be_told_keeps_no_vm_out() -> None:
    """cloud-init's notes cannot be read."""
    sky = Sky("auto", "")
    sky.told = LocalFault("cannot read it")
    sky.vm.clock.pass_by(UNHEARD_S)
    with pytest.raises(LocalFault):
        sky.hear()
    assert not sky.vm.drained.get().hold


def test_it_ends_with_its_configuration() -> None:
    """A notice of a cloud that is no longer listened to keeps nobody out."""
    sky = moored()
    sky.hear(SPOT)
    sky.settings.set(Sky.configured("none"))
    sky.hear(SPOT)
    assert sky.entry() == ("True", "Passed")


def test_a_notice_is_not_for_resume_to_end_and_an_order_outlives_it() -> None:
    """Who drained the VM before or meanwhile has drained it, notice or not."""
    sky = moored()
    sky.hear(SPOT)
    with pytest.raises(Rejected, match="it is out for the AWS spot notice"):
        sky.draining.obey({"verb": "resume", "service": "", "who": "alice"})
    sky.draining.obey({"verb": "drain", "service": "", "who": "alice"})
    assert drain.marks(sky.vm.drained.get())[drain.ANNOTATION].startswith("AWS spot notice 20")
    sky.hear()
    assert sky.vm.drained.get().whole == Order("alice", sky.vm.clock.wall())
    assert sky.entry() == ("False", "Drained")


def test_a_notice_is_not_kept() -> None:
    """An instance that was stopped by one is welcome when it starts again."""
    sky = moored()
    sky.hear(SPOT)
    sky.draining.obey({"verb": "drain", "service": "web", "who": "alice"})
    again = Sky(vm=sky.vm)
    assert again.vm.drained.get().whole is None
    assert again.vm.drained.get().services.keys() == {"web"}


# What each cloud says


@pytest.mark.parametrize(
    ("target", "who"),
    [
        (None, ""), ("InService", ""), ("Detached", ""), ("Something", ""),
        ("Terminated\n", "AWS scale-in"), ("Standby", "AWS standby"),
        ("Warmed:Stopped", "AWS warm pool"),
        ("Warmed:Hibernated", "AWS warm pool"), ("Warmed:Terminated", "AWS warm pool"),
    ],
)  # fmt: skip
def test_where_a_scaling_group_wants_an_instance(target: Optional[str], who: str) -> None:
    """Whoever left its group on purpose is nobody's to take out."""
    found = notice.of_aws(None, target)
    assert (found.who if found else "") == who


def test_a_spot_notice_comes_first() -> None:
    """Whatever the group wants, that instance ends."""
    spot = json.dumps({"action": "stop", "time": "18:02"})
    assert notice.of_aws(spot, "InService") == Notice("AWS spot notice", "stop at 18:02")


@pytest.mark.parametrize("spot", ["", "null", "[]", "{}", '{"action": "dance"}', '{"action": []}'])
def test_a_spot_notice_that_is_none_is_none(spot: str) -> None:
    """It is an error to be told, not a reason to go."""
    with pytest.raises(ValueError, match=r"."):
        notice.of_aws(spot, None)


@pytest.mark.parametrize(
    ("kind", "status", "drains"),
    [
        ("Preempt", "Scheduled", True), ("Terminate", "Started", True),
        ("Reboot", "Scheduled", True), ("Redeploy", "Started", True),
        ("Freeze", "Scheduled", False), ("Preempt", "Canceled", False),
        ("Reboot", "Completed", False), ("Dance", "Scheduled", False),
    ],
)  # fmt: skip
def test_what_azure_schedules(kind: str, status: str, drains: bool) -> None:
    """A freeze takes seconds; what was called off or is over is no reason to go."""
    event = {"EventType": kind, "EventStatus": status, "Resources": ["WEB-1"], "NotBefore": ""}
    found = notice.of_azure(json.dumps({"Events": [event, None, 7]}), "web-1")
    assert found == (Notice(f"Azure {kind} event", "not before once") if drains else None)


@pytest.mark.parametrize("text", ["", "7", "{}", '{"Events": {}}', '{"Events": null}'])
def test_events_that_are_none(text: str) -> None:
    """Told, and nothing follows."""
    with pytest.raises(ValueError, match=r"."):
        notice.of_azure(text, "web-1")


def test_what_google_says() -> None:
    """TRUE or FALSE."""
    assert notice.of_gce("FALSE\n") is None
    assert notice.of_gce("TRUE\n") == Notice("GCE preemption", "preempted")
    with pytest.raises(ValueError, match="preempted maybe"):
        notice.of_gce("maybe")


@pytest.mark.parametrize(
    ("asked", "told", "cloud"),
    [("none", "aws", ""), ("auto", "aws", "aws"), ("auto", "nocloud", ""), ("gce", "aws", "gce")],
)
def test_whose_metadata_are_watched(asked: str, told: str, cloud: str) -> None:
    """The configuration's word, or cloud-init's."""
    assert notice.cloud_of(asked, lambda: told) == cloud
