from __future__ import annotations

from vmoor.controllers.pacing import Pacing
from vmoor.errors import Forbidden
from vmoor.model.lease import Pace
from vmoor.model.reaper import fleet
from vmoor.model.reaper.fleet import Published
from vmoor.ports import Kind
from vmoor.runtime.loop import Settled

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Vm


class Mesh:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.vm = Vm(self.cluster)
        self.pacing = Pacing(
            settings=self.vm.settings, credentials=self.vm.credentials, pace=self.vm.pace,
            cluster=self.cluster, clock=self.vm.clock,
        )  # fmt: skip

    def publish(self, interval: float) -> None:
        at = str(self.vm.clock.now())
        self.cluster.put(Kind.LEASE, fleet.body(None, Published(interval), "r1", at))

    def look(self) -> Settled:
        return self.pacing.reconcile()

    @property
    def pace(self) -> Pace:
        return self.vm.pace.get()


def test_the_published_interval_is_obeyed() -> None:
    """With the next beat: its Lease says how long it is good, and the beat after comes then."""
    mesh = Mesh()
    mesh.vm.beat_once()
    mesh.publish(10)
    mesh.look()
    mesh.vm.clock.pass_by(3)
    settled = mesh.vm.beat_once()
    there = mesh.cluster.there(Kind.LEASE, "vmoor-vm1") or {}
    assert there["spec"]["leaseDurationSeconds"] == 31
    assert settled.again == 10.0
    assert mesh.vm.beat.get().duration == 31


def test_a_reaper_is_believed_when_it_is_seen_to_live() -> None:
    """The first look proves nothing; the second does, soon after."""
    mesh = Mesh()
    mesh.publish(3)
    again = mesh.look().again
    assert mesh.pace.reaper == ""
    mesh.look()
    assert mesh.pace.reaper == ""
    mesh.vm.clock.pass_by(again)
    mesh.publish(3)
    assert mesh.look().again == 60
    assert mesh.pace.reaper == "watching"


def test_without_a_reaper_it_says_so() -> None:
    """None at all, or one that renews no more. Then the interval stays: a large fleet that went
    back to 3 s after each outage would be the next one."""
    mesh = Mesh()
    assert mesh.look().again == 60
    assert mesh.pace == Pace(3.0, "none")
    mesh.publish(30)
    mesh.look()
    mesh.vm.clock.pass_by(20)
    mesh.publish(30)
    mesh.look()
    assert mesh.pace == Pace(30.0, "watching")
    mesh.vm.clock.pass_by(31)
    mesh.look()
    assert mesh.pace == Pace(30.0, "none")


def test_old_manifests_are_no_failure() -> None:
    """Without the right to look it beats every 3 s."""
    mesh = Mesh()
    mesh.cluster.refuse = lambda *_: Forbidden("cannot get leases vmoor-fleet")
    assert not mesh.look().waiting
    assert mesh.pace == Pace(3.0, "unknown")
