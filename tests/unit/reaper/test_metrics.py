from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vmoor.model.reaper import metrics
from vmoor.model.reaper.decision import MESH, Brake, Scope
from vmoor.model.reaper.seen import Endpoint, Grave, Pulse, Vm

from tests.unit.reaper.test_reaping import Mesh


def vm(name: str) -> Vm:
    return Vm("shop", name)


def test_vms_in_each_state() -> None:
    """As `vmoor fleet` counts them; states without a VM are told as 0."""
    beats = Pulse(vm("a"), holder="h", renewed="r", duration=10, changed=95)
    pulses = [
        beats,
        replace(beats, vm=vm("b"), changed=80),
        replace(beats, vm=vm("c"), changed=80),
        replace(beats, vm=vm("d"), holder=""),
        replace(beats, vm=vm("e"), drained=True),
        replace(beats, vm=vm("f"), grave=Grave()),
    ]
    endpoints = [
        Endpoint(vm("c"), "web.c", "web", expired=True),
        Endpoint(vm("g"), "web.g", "web"),
        Endpoint(vm("g"), "db.g", "db"),
    ]
    family = metrics.of_vms(100, pulses, endpoints)
    assert {labels["state"]: value for labels, value in family.samples} == {
        "beats": 1, "silent": 1, "dead": 1, "left": 1, "drained": 1, "gone": 1, "no lease": 1,
    }  # fmt: skip
    assert sum(value for _, value in metrics.of_vms(100, (), ()).samples) == 0


def test_the_brake_is_one_where_it_holds() -> None:
    """That of the mesh is always told, so that a rule has something to look at."""

    def brakes(*held: Brake) -> Mapping[str, float]:
        found = {f.name: f for f in metrics.of_reaper(leads=True, brakes=held, removals=0)}
        return {labels["scope"]: value for labels, value in found["vmoor_fleet_brake"].samples}

    assert brakes() == {str(MESH): 0}
    held = Brake(Scope("shop", "web"), 6, 10)
    assert brakes(held) == {str(MESH): 0, "shop/web": 1}
    assert brakes(held, Brake(MESH, 6, 10)) == {str(MESH): 1, "shop/web": 1}


def test_removals_are_counted() -> None:
    """Each entry that was taken out, once."""
    mesh = Mesh(4)
    mesh.pass_by(14, mesh.vms[1:])
    assert mesh.reaper.removals.get() == 1
    mesh.pass_by(14, mesh.vms[1:])
    assert mesh.reaper.removals.get() == 1
