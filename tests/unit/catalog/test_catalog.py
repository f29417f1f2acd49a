"""The loop that follows the Consul agent, pass by pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Callable, Optional

import pytest
from vmoor import errors
from vmoor.config.settings import (
    AppRole,
    ConsulSource,
    MeshSource,
    Settings,
    Sources,
    VaultSettings,
)
from vmoor.controllers.catalog import Catalog
from vmoor.model.catalog import Declared, Said
from vmoor.model.discovered import Found
from vmoor.model.service import Workload
from vmoor.ports import Turn
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

from tests.fakes.files import FakeFiles

PLAIN = Settings(
    vault=VaultSettings(("https://vault:8200",), AppRole("web")),
    mesh=MeshSource("secret", "mesh"),
    workload=Workload("shop", "web", "web"),
)
SETTINGS = replace(PLAIN, sources=Sources(consul=ConsulSource()))
WEB = Declared("web", "web", 8080, ("vmoor",), {}, "", 1)
SICK = Said("service:web", "alive", "web", "critical", "503", "", "http")
SERF = Said("serfHealth", "Serf", "", "critical", "gone", "", "")
AWAY = errors.Unavailable("cannot reach http://127.0.0.1:8500: connection refused")
DROPPED = errors.Unavailable("cannot reach http://127.0.0.1:8500: dropped")
LEADERLESS = errors.Unavailable("cannot read: 500 No cluster leader")


class World:
    """A VM with a Consul agent; it is the port Consul itself."""

    def __init__(
        self, settings: Optional[Settings] = SETTINGS, files: Optional[FakeFiles] = None
    ) -> None:
        self.files = files or FakeFiles()
        self.settings: Cell[Optional[Settings]] = Cell(settings)
        self.found = Cell(Found(ready=False))
        self.services: Sequence[Declared] = (WEB,)
        self.said: Sequence[Said] = ()
        self.turns: Sequence[Turn] = ()
        self.away: Optional[errors.VmoorError] = None
        self.blind: Optional[errors.VmoorError] = None
        self.waited: list[int] = []
        self.made = self.closed = 0
        self.ended = False
        self.meanwhile: Callable[[], None] = lambda: None
        self._controller = Catalog(
            settings=self.settings, found=self.found, connect=self._made, files=self.files
        )

    def _made(self) -> World:
        """The next one: an end is for good."""
        self.made += 1
        self.ended = False
        return self

    def reload(self, source: Optional[ConsulSource]) -> None:
        """As the agent does it: the cell first, then whoever is to know."""
        self.settings.set(replace(SETTINGS, sources=Sources(consul=source)))
        self._controller.reloaded()

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed += 1

    def look(self) -> Settled:
        return self._controller.reconcile()

    @property
    def names(self) -> list[str]:
        return [service.name for service in self.found.get().services]

    def node(self, source: ConsulSource) -> str:
        if self.away:
            raise self.away
        return "here"

    def turn(self, source: ConsulSource, node: str, index: int) -> Turn:
        assert node == "here"
        self.waited.append(index)
        failure = self.away or self.blind
        self.meanwhile()
        if failure or self.ended:
            raise failure or DROPPED
        if not self.turns:
            return Turn(index + 1)
        first, *self.turns = self.turns
        return first

    def declared(self, source: ConsulSource) -> tuple[Sequence[Declared], Sequence[Said]]:
        if self.away or self.ended:
            raise self.away or DROPPED
        return self.services, self.said


def test_not_configured_costs_nothing_and_brings_nothing() -> None:
    """No request; what was found before is taken back."""
    for settings in (None, PLAIN):
        world = World(settings)
        world.found.set(Found(problems=("old",)))
        assert world.look() == Settled("not configured", 300.0, waiting=True)
        assert world.found.get() == Found()
        assert world.waited == []


def test_a_change_is_followed_from_query_to_query() -> None:
    """The first query does not wait; each other one waits for what comes after it."""
    world = World()
    assert world.look() == Settled("1 service of http://127.0.0.1:8500", 0.2)
    assert (world.names, world.found.get().told["web"].passed) == (["web"], True)
    world.said = (SICK,)
    world.look()
    assert not world.found.get().told["web"].passed
    world.services = ()
    world.look()
    assert world.found.get() == Found()
    assert world.waited == [0, 1, 2]


def test_an_index_that_is_none_starts_from_the_beginning() -> None:
    """And without a busy loop."""
    world = World()
    world.turns = (Turn(7), Turn(0), Turn(3))
    assert [world.look().again for _ in range(4)] == [0.2, 2.0, 0.4, 0.8]
    assert world.waited == [0, 7, 0, 3]


def test_the_nodes_checks_count_for_all() -> None:
    """Those that only the servers know; the agent's own word of the same check comes first."""
    world = World()
    world.turns = (Turn(7, (SERF,)), Turn(8, (SERF,)))
    world.look()
    assert world.found.get().told["web"].words == "consul: Serf is critical: gone"
    world.said = (replace(SERF, status="passing"),)
    world.look()
    assert world.found.get().told["web"].passed


def test_without_a_server_the_agents_own_truth_counts() -> None:
    """It is looked at every two seconds, and the words say why."""
    world = World()
    world.turns = (Turn(7, (SERF,)),)
    world.look()
    world.blind, world.said = LEADERLESS, (SICK,)
    settled = world.look()
    assert settled.again == 2.0
    assert "looking every 2 s: cannot read: 500 No cluster leader" in settled.words
    assert world.found.get().told["web"].words == "consul: alive is critical: 503"
    world.blind, world.said = None, ()
    assert world.look().again == 0.2
    assert world.waited == [0, 7, 0]


@pytest.mark.parametrize("error", [AWAY, errors.Forbidden("cannot read: 403")])
def test_an_agent_that_is_away_takes_nothing_with_it(error: errors.VmoorError) -> None:
    """The last that it said stays, and when it is back nothing is waited for."""
    world = World()
    world.look()
    before = world.found.get()
    world.away = error
    for _ in range(3):
        with pytest.raises(type(error)):
            world.look()
    assert world.found.get() is before
    world.away, world.services = None, ()
    world.look()
    assert world.names == []
    assert world.waited == [0, 1, 0]


def test_news_are_not_lost_when_they_cannot_be_read() -> None:
    """The query told of them, then the agent went away: the next pass waits for nothing."""
    world = World()
    world.look()
    world.meanwhile = lambda: setattr(world, "away", AWAY)
    with pytest.raises(errors.Unavailable):
        world.look()
    world.meanwhile, world.away, world.services = (lambda: None), None, ()
    world.look()
    assert world.waited == [0, 1, 0]
    assert world.names == []


def test_a_right_that_is_missing_is_told() -> None:
    """It is not taken for a lost server."""
    world = World()
    world.blind = errors.Forbidden("cannot read: 403 Permission denied")
    with pytest.raises(errors.Forbidden):
        world.look()


def test_before_the_first_answer_there_is_nothing() -> None:
    world = World()
    world.away = AWAY
    with pytest.raises(errors.Unavailable):
        world.look()
    assert world.found.get() == Found()


def test_a_changed_configuration_counts_from_the_next_pass_on() -> None:
    """What was read for the old one is thrown away."""
    world = World()
    world.look()
    other = replace(SETTINGS, sources=Sources(consul=ConsulSource(require_tag="mesh")))
    world.meanwhile = lambda: world.settings.set(other)
    world.services = ()
    assert world.look().again == 0.0
    assert world.names == ["web"]
    world.services = (replace(WEB, tags=("mesh",)),)
    world.look()
    assert world.names == ["web"]
    assert world.waited == [0, 1, 0]
    world.settings.set(PLAIN)
    world.look()
    assert world.found.get() == Found()


def test_another_agent_is_asked_from_the_beginning() -> None:
    """An index is of one agent's catalog."""
    world = World()
    world.look()
    other = ConsulSource("http://127.0.0.1:18500")
    world.settings.set(replace(SETTINGS, sources=Sources(consul=other)))
    assert "18500" in world.look().words
    assert world.waited == [0, 0]


def test_what_was_declared_outlives_a_restart_of_ours() -> None:
    """Consul may be away just then: its services stay, with their health unknown."""
    before = World()
    before.look()
    after = World(files=before.files)
    after.away = AWAY
    with pytest.raises(errors.Unavailable):
        after.look()
    assert (after.names, after.found.get().told, after.found.get().ready) == (["web"], {}, True)
    after.away, after.services = None, ()
    after.look()
    assert after.names == []


@pytest.mark.parametrize("content", [None, b"{", b'{"services": 1}'])
def test_without_a_record_the_first_answer_or_failure_counts(content: Optional[bytes]) -> None:
    """Until then the source is not ready, and nothing of the VM leaves for its sake."""
    files = FakeFiles()
    if content is not None:
        files.write("/var/lib/vmoor/consul.json", content, 0o600)
    world = World(files=files)
    states = []
    world.meanwhile = lambda: states.append(world.found.get().ready)
    world.away = AWAY
    with pytest.raises(errors.Unavailable):
        world.look()
    assert world.found.get() == Found()
    world = World(files=files)
    world.meanwhile = lambda: states.append(world.found.get().ready)
    world.look()
    assert states[-1] is False
    assert world.found.get().ready


def test_a_changed_source_takes_nothing_away_before_it_has_answered() -> None:
    """A reload with an unreadable token, say: what the former said stays until then."""
    world = World()
    world.look()
    world.settings.set(replace(SETTINGS, sources=Sources(consul=ConsulSource(require_tag=""))))
    world.away = AWAY
    with pytest.raises(errors.Unavailable):
        world.look()
    assert world.names == ["web"]
    world.away, world.services = None, ()
    world.look()
    assert world.names == []


def test_a_busy_catalog_is_asked_less_often() -> None:
    """Its index moves for all of the datacentre: queries that bring nothing slow down."""
    world = World()
    assert [world.look().again for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    world.said = (SICK,)
    assert world.look().again == 0.2


def test_a_reload_ends_the_query_of_the_former_source() -> None:
    """It is no failure, and the next pass asks the new one from the beginning."""
    world = World()
    world.look()
    other = ConsulSource("http://127.0.0.1:18500")
    world.meanwhile = lambda: world.reload(other)
    assert world.look() == Settled("reading the configuration anew", 0.0)
    assert (world.names, world.ended) == (["web"], True)
    world.meanwhile = lambda: None
    assert "18500" in world.look().words
    assert (world.waited, world.made, world.closed) == ([0, 1, 0], 2, 1)


def test_a_reload_that_changes_something_else_ends_nothing() -> None:
    """Nor does one while no source is asked."""
    world = World()
    world.reload(ConsulSource())
    world.look()
    world.meanwhile = lambda: world.reload(ConsulSource())
    assert world.look().words == "1 service of http://127.0.0.1:8500"
    assert (world.ended, world.made) == (False, 1)


def test_there_and_back_again_is_asked_anew() -> None:
    """Two reloads within one query: the source is the same, what asked it was ended for good."""
    world = World()
    world.look()

    def twice() -> None:
        world.reload(ConsulSource("http://127.0.0.1:18500"))
        world.reload(ConsulSource())

    world.meanwhile = twice
    assert world.look().again == 0.0
    world.meanwhile = lambda: None
    assert world.look().words == "1 service of http://127.0.0.1:8500"
    assert (world.names, world.made) == (["web"], 2)


def test_what_is_taken_out_by_a_reload_goes_at_once() -> None:
    """The query that waits does not keep it in."""
    world = World()
    world.look()
    world.meanwhile = lambda: world.reload(None)
    assert world.look().again == 0.0
    assert world.look().words == "not configured"
    assert (world.found.get(), world.closed) == (Found(), 1)
