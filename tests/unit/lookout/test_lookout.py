"""What our own Envoy makes of our entries, pass by pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

import pytest
from vmoor.config.settings import Interception
from vmoor.controllers import lookout
from vmoor.model.lease import Lock
from vmoor.model.service import Service
from vmoor.model.sight import NUDGE, Sight
from vmoor.ports import Kind

from tests.fakes.cluster import FakeCluster
from tests.fakes.envoy import FakeEnvoy
from tests.unit.registration.world import Vm

WEB = "web.vm1"


class World(Vm):
    """A moored VM with web on 8080; its Envoy lists everything and takes in `inbound`."""

    def __init__(self, *inbound: int, looks: Optional[int] = 10_000) -> None:
        super().__init__(FakeCluster(), envoy=FakeEnvoy(looks))
        self.envoy.inbound = frozenset(inbound)
        self.lookout = lookout.Lookout(
            settings=self.settings,
            discovered=self.discovered,
            registered=self.registered,
            sights=self.sights,
            lock=self.lock,
            beat=self.beat,
            machine=self.machine,
            envoy=self.envoy,
            cluster=self.cluster,
            clock=self.clock,
        )
        self.moor()
        self.cluster.calls.clear()

    def look(self, times: int = 1) -> float:
        """So many passes, each when the one before wanted it; how long until the next."""
        for _ in range(times):
            again = self.lookout.reconcile().again
            self.clock.pass_by(again)
            self.beat_once()
        return again

    def nudges(self) -> int:
        return [verb for verb, name in self.cluster.calls if name == WEB].count("apply")


def test_agreement_ends_the_looking() -> None:
    """Envoy has it, in and out, and for a second: the next look is half a minute away."""
    world = World(8080)
    began = world.clock.now()
    assert world.look(10) == pytest.approx(0.1)
    assert world.look(2) == lookout.WATCH_S
    assert world.sights.get()["web"] == Sight(listed=True, agreed=began)
    assert world.nudges() == 1


def test_what_is_not_listed_yet_is_looked_at_again() -> None:
    """Each tenth of a second at first, later less often; no further write."""
    world = World(8080, looks=0)
    assert world.look() == pytest.approx(0.1)
    assert world.look(30) == pytest.approx(1.0)
    assert world.look(40) == pytest.approx(5.0)
    assert world.sights.get()["web"] == Sight()
    assert world.nudges() == 1


def test_who_enters_is_followed_by_a_nudge() -> None:
    """At once, before Envoy shows anything: one label changes, and registration stays calm."""
    world = World(8080)
    world.look()
    assert world.nudges() == 1
    entry = world.cluster.there(Kind.ENTRY, WEB)
    assert entry["metadata"]["labels"][NUDGE] == "1"
    assert entry["metadata"]["labels"]["vmoor.io/service"] == "web"
    world.cluster.calls.clear()
    world.watch()
    world.register()
    assert world.look(12) == lookout.WATCH_S
    assert not [verb for verb, _ in world.cluster.calls if verb in ("apply", "status")]


def test_a_restarted_agent_nudges_nobody() -> None:
    """What was in the mesh before it is no news to istiod."""
    world = World(8080)
    world.registered.set(tuple(replace(e, entered=0.0) for e in world.registered.get()))
    world.look(12)
    assert world.nudges() == 0


def test_plain_tcp_is_nudged_again() -> None:
    """Listed, but no inbound cluster in two looks: the first nudge came too soon."""
    world = World()
    world.look()
    assert world.nudges() == 1
    world.look()
    assert world.nudges() == 2
    assert world.cluster.there(Kind.ENTRY, WEB)["metadata"]["labels"][NUDGE] == "2"


def test_nudging_in_vain_ends() -> None:
    """An istiod that never answers is not pushed for ever; a change gives it a fresh chance."""
    world = World()
    world.look(40)
    assert world.nudges() == 1 + lookout.NUDGES
    began = world.clock.now()
    while world.clock.now() - began < 3600:
        world.look()
    assert world.nudges() <= 1 + lookout.NUDGES + 3600 / lookout.CALM_S
    world.cluster.calls.clear()
    world.judge(web=False)
    world.register()
    world.judge(web=True)
    world.register()
    world.look(40)
    assert 1 + lookout.NUDGES - 1 <= world.nudges() <= 1 + lookout.NUDGES


def test_what_istiod_takes_back_a_moment_later_is_seen() -> None:
    """Envoy agrees at first, then loses the inbound side."""
    world = World(8080)
    world.look()
    world.envoy.inbound = frozenset()
    world.look(2)
    assert world.nudges() == 2


def test_a_service_that_is_selected_no_more_is_seen() -> None:
    """Nothing of ours changed, somebody edited the ServiceEntry: told within half a minute."""
    world = World(8080)
    world.look(12)
    assert world.sights.get()["web"].listed
    world.envoy.looks = 0
    world.clock.pass_by(lookout.WATCH_S)
    world.look()
    assert world.sights.get()["web"] == Sight()


def test_nobody_is_nudged_amid_a_leave() -> None:
    """Its writes are conditional: a nudge between them would cost it a round."""
    world = World()
    world.lookout.end()
    world.look(5)
    assert world.nudges() == 0


def test_nobody_is_nudged_without_the_lease() -> None:
    """Every write to an entry needs it."""
    world = World()
    world.lock.set(Lock())
    for _ in range(5):
        world.lookout.reconcile()
    assert world.nudges() == 0


def test_without_capture_nothing_is_taken_in() -> None:
    """Interception none has no inbound side that could be blind."""
    world = World()
    settings = world.settings.get()
    assert settings is not None
    world.settings.set(replace(settings, interception=Interception(mode="none")))
    world.look(5)
    assert world.nudges() == 0


def test_a_service_out_of_the_mesh_is_agreed_on_when_it_is_not_listed() -> None:
    """The instant at which Envoy forgot it is what `status` shows."""
    world = World(8080)
    world.look()
    world.judge(web=False)
    world.register()
    world.look()
    assert world.sights.get()["web"].agreed == 0.0
    world.envoy.looks = 0
    now = world.clock.now()
    world.look()
    assert world.sights.get()["web"] == Sight(listed=False, agreed=now)


def test_of_several_ports_those_that_the_mesh_uses_count() -> None:
    """A port that no ServiceEntry names has no inbound cluster, and needs none."""
    world = World(8080)
    world.serve(Service("web", {"http": 8080, "admin": 9090}, ()))
    world.register()
    world.cluster.calls.clear()
    world.envoy.hidden = frozenset(["10.0.0.1:9090"])
    world.look(3)
    assert not world.sights.get()["web"].blind
    assert world.nudges() == 1
