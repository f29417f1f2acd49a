from __future__ import annotations

from typing import Any

from vmoor.cli import fleet as command
from vmoor.model import entry
from vmoor.model.reaper import fleet, overview, seen
from vmoor.model.reaper.decision import MESH, Brake, Scope
from vmoor.model.reaper.fleet import Published
from vmoor.model.reaper.overview import Gathered, Overview
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.reaper.world import SimVm
from tests.unit.registration.world import Clock


class Mesh:
    def __init__(self, count: int) -> None:
        self.cluster, self.clock = FakeCluster(), Clock()
        self.vms = [
            SimVm(self.cluster, self.clock, f"vm{n}", locality="eu/a") for n in range(count)
        ]
        for vm in self.vms:
            vm.beat()
            vm.serve("web")

    def publish(self, *brakes: Brake) -> None:
        at = "2026-11-24T12:00:00.000000Z"
        thing: dict[str, Any] = dict(fleet.body(None, Published(3.0, brakes), "r1", at))
        renewed = entry.timestamp(self.clock.wall())
        thing["spec"] = {**thing["spec"], "renewTime": renewed}
        self.cluster.put(Kind.LEASE, thing)

    def overview(self) -> Overview:
        gathered = Gathered()
        for kind, take in ((Kind.LEASE, gathered.lease), (Kind.ENTRY, gathered.entry)):
            for thing in self.cluster.list(kind, f"{entry.MANAGED_BY}=vmoor", deadline=5)[0]:
                take(thing)
        return gathered.overview(self.clock.wall())

    def text(self) -> str:
        return "\n".join(command.lines(self.overview()))


def test_all_is_well() -> None:
    """One line for all, one for each VM; exit code 0."""
    mesh = Mesh(2)
    mesh.publish()
    assert command.fine(mesh.overview())
    text = mesh.text()
    assert text.startswith("2 VMs: 2 beats; a beat every 3s; reaper r1")
    assert "shop/vm0  beats  0s ago  eu/a  -        web" in text


def test_without_a_reaper_it_says_so() -> None:
    """None ever, or one that has stopped publishing."""
    mesh = Mesh(1)
    assert "no reaper watches" in mesh.text()
    mesh.publish()
    mesh.clock.pass_by(60)
    mesh.vms[0].beat()
    assert "no reaper watches" in mesh.text()
    assert not command.fine(mesh.overview())


def test_the_worst_come_first() -> None:
    """Silent ones, dead ones, those of which only entries are left; then those that beat."""
    mesh = Mesh(5)
    mesh.clock.pass_by(42)
    for vm in (mesh.vms[0], mesh.vms[3]):
        vm.beat()
    have = mesh.cluster.there(Kind.ENTRY, "web.vm2") or {}
    body = entry.with_health(
        have, status=False, reason="LeaseExpired", message="", wall=mesh.clock.wall()
    )
    mesh.cluster.apply(Kind.ENTRY, body, force=True, status=True, deadline=5)
    mesh.cluster.remove(Kind.LEASE, "vmoor-vm4")
    mesh.cluster.edit(
        Kind.LEASE, "vmoor-vm3",
        lambda thing: thing["metadata"].update(annotations={seen.DRAINED: "root 2026"}),
    )  # fmt: skip
    mesh.publish()
    rows = mesh.overview().rows
    assert [(r.vm.name, r.state) for r in rows] == [
        ("vm1", "silent"), ("vm2", "dead"), ("vm4", "no lease"), ("vm3", "drained"),
        ("vm0", "beats"),
    ]  # fmt: skip
    assert "42s ago" in mesh.text()
    assert "web:LeaseExpired" in mesh.text()


def test_the_brake_is_told_with_its_remedy() -> None:
    """As the reaper published it."""
    mesh = Mesh(2)
    mesh.publish(Brake(MESH, 6, 10), Brake(Scope("shop", "web"), 6, 10))
    assert "BRAKE on shop/web: 6 of 10 VMs are lost" in mesh.text()
    assert "vmoor fleet confirm --silent" in mesh.text()
    assert not command.fine(mesh.overview())


def test_a_confirmation_is_of_this_very_beat() -> None:
    """Applied, the reaper believes it; it is tied to the version that was seen."""
    mesh = Mesh(2)
    mesh.clock.pass_by(42)
    mesh.vms[1].beat()
    silent = [row for row in mesh.overview().rows if row.state == "silent"]
    (body,) = overview.confirmations(silent)
    assert body["metadata"]["resourceVersion"]
    mesh.cluster.apply(Kind.LEASE, body, force=True, deadline=5)
    thing = mesh.cluster.there(Kind.LEASE, "vmoor-vm0")
    assert thing is not None
    pulse = seen.pulse(thing, 0.0)
    assert pulse is not None
    assert pulse.confirmed
    mesh.vms[0].beat()
    thing = mesh.cluster.there(Kind.LEASE, "vmoor-vm0")
    pulse = seen.pulse(thing or {}, 0.0)
    assert pulse is not None
    assert not pulse.confirmed
