"""Whatever is in the namespace: what does not carry our whole mark is never written to."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from vmoor.errors import VmoorError
from vmoor.model import entry
from vmoor.model.entry import Owner
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import OWNER, Vm, service

NAMES = ["web.vm1", "api.vm1", "old.vm1", "web.vm2", "web"]
MARKS = [
    {},
    dict(OWNER.labels),
    dict(Owner("vm2", "web").labels),
    dict(Owner("vm1", "api").labels),
    {**OWNER.labels, entry.MANAGED_BY: "Helm"},
    {entry.MANAGED_BY: "vmoor", entry.VM: "vm1"},
]


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    healthy = {"type": "Healthy", "status": draw(st.sampled_from(["True", "False"]))}
    return {
        "metadata": {
            "name": draw(st.sampled_from(NAMES)),
            "labels": dict(draw(st.sampled_from(MARKS))),
            "annotations": {entry.HOLDER: draw(st.sampled_from(["m1/b0", "m1/b1", "m2/b1"]))},
        },
        "spec": {"address": draw(st.sampled_from(["10.0.0.1", "10.9.9.9"]))},
        "status": {"conditions": [healthy] if draw(st.booleans()) else []},
    }


def live(vm: Vm, passes: int) -> None:
    """Some passes of everything; failures are told to people and change nothing here."""
    for _ in range(passes):
        for act in (vm.beat_once, vm.watch, vm.register):
            with contextlib.suppress(VmoorError):
                act()
        vm.clock.pass_by(3)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries(), unique_by=lambda e: e["metadata"]["name"]), st.booleans())
def test_a_whole_life_touches_only_what_is_ours(
    world: list[dict[str, Any]], healthy: bool
) -> None:
    """Moored, rebooted inside the lease, moored again, left."""
    cluster = FakeCluster()
    for thing in world:
        cluster.put(Kind.ENTRY, thing)
    foreign = {
        name: thing
        for name in cluster.names(Kind.ENTRY)
        if (thing := cluster.there(Kind.ENTRY, name)) and not OWNER.owns(thing)
    }
    vm = Vm(cluster)
    for one in (vm, vm.boot("b2")):
        one.serve(service("web"), service("api", 9090))
        one.judge(web=healthy, api=not healthy)
        live(one, 5)
    one.leaving.leave(5)
    assert {name: cluster.there(Kind.ENTRY, name) for name in foreign} == foreign
    assert cluster.names(Kind.ENTRY) == set(foreign)
