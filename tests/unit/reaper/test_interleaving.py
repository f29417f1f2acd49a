"""Agent and reaper write the same objects: whatever the order of their requests, it ends well."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from vmoor.errors import VmoorError
from vmoor.model import entry
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.unit.reaper.world import Reaper, SimVm
from tests.unit.registration.world import Vm

AGENT = ("beat", "register", "both")
STEPS = st.sampled_from([*AGENT, "reap", "reap", "pause", "long pause"])


class Mesh:
    """A VM with a real agent's controllers, three others that only beat, a reaper."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.vm = Vm(self.cluster)
        self.vm.moor()
        self.others = [SimVm(self.cluster, self.vm.clock, f"other{n}") for n in range(3)]
        for other in self.others:
            other.beat()
            other.serve("web")
        self.reaper = Reaper(self.cluster, self.vm.clock)
        self.pass_by(24)

    def pass_by(self, seconds: float) -> None:
        for _ in range(int(seconds / 3)):
            self.vm.clock.pass_by(3)
            for other in self.others:
                with suppress(VmoorError):
                    other.beat()
            self.reap()

    def reap(self) -> None:
        with suppress(VmoorError):
            self.reaper.turn()

    def agent(self, what: str) -> None:
        with suppress(VmoorError):
            if what in ("beat", "both"):
                self.vm.beat_once()
            if what in ("register", "both"):
                self.vm.watch()
                self.vm.register()

    def step(self, what: str) -> None:
        if what == "reap":
            self.vm.clock.pass_by(1)
            self.reap()
        elif "pause" in what:
            self.pass_by(15 if what == "pause" else 630)
        else:
            self.agent(what)


@given(st.lists(st.tuples(STEPS, st.integers(0, 12), st.sampled_from(AGENT)), max_size=8))
@settings(max_examples=20, deadline=None)
def test_a_vm_that_beats_ends_in_the_mesh(steps: list[tuple[str, int, str]]) -> None:
    """Between any two requests of the reaper the agent may act: between its read and its write,
    its tombstone and its delete. In the end the entry is there, healthy, and nobody else's."""
    mesh = Mesh()
    for what, after, meddling in steps:
        left = [after]

        def meddle(_verb: str, _name: str, left: list[int] = left, do: str = meddling) -> None:
            left[0] -= 1
            if left[0] == 0:
                mesh.agent(do)

        mesh.cluster.before = meddle
        mesh.step(what)
    mesh.cluster.before = lambda *_: None
    for _ in range(5):
        mesh.agent("both")
        mesh.pass_by(3)
    thing = mesh.cluster.there(Kind.ENTRY, "web.vm1")
    assert thing is not None
    assert entry.health_status(thing) == "True"
    assert all(other.health() == ("True", "Said") for other in mesh.others)
    found = mesh.reaper.leases.get().things["shop", "vmoor-vm1"]
    assert found.grave is None
