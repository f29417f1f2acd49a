"""Services that fall again and again."""

from __future__ import annotations

from vmoor.model.discovered import Discovered
from vmoor.model.flap import LONGEST_S
from vmoor.model.health import Health
from vmoor.model.proxy import ProxyState
from vmoor.runtime.bell import Bell

from tests.unit.health.world import World


def fall(world: World, after: float = 1.0) -> None:
    """Dead, seen, running and listening again, seen."""
    world.units.kill("web.service")
    world.look(after)
    assert world.health() is Health.UNHEALTHY
    world.units.start("web.service")
    world.look(0.1)


def test_two_falls_cost_nothing(serving: World) -> None:
    """A deployment, and the one that mends it: back at once."""
    for _ in range(2):
        fall(serving)
        assert serving.health() is Health.HEALTHY


def test_the_hold_doubles(serving: World) -> None:
    """From the third fall on: 1, 2, 4 ... seconds of passing, never more than a minute."""
    holds = []
    for _ in range(10):
        fall(serving)
        held = 0.0
        while serving.health() is not Health.HEALTHY:
            again = serving.look()
            serving.look(again)
            held += again
        holds.append(round(held))
    assert holds == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert LONGEST_S == 60


def test_a_failure_while_held_starts_the_hold_anew(serving: World) -> None:
    """What counts is passing without a failure; who held it out is told."""
    for _ in range(4):
        fall(serving)
        serving.look(1.0)
    assert serving.words() == (
        "passes again, but fell 4 times in 10m: back after 2s without a failure"
    )
    serving.units.kill("web.service")
    serving.look(0.5)
    serving.units.start("web.service")
    serving.look(0.1)
    serving.look(1.9)
    assert serving.health() is Health.UNHEALTHY
    serving.look(0.2)
    assert serving.health() is Health.HEALTHY


def test_going_out_is_never_delayed(serving: World) -> None:
    """The tenth fall is as fast as the first."""
    for _ in range(9):
        fall(serving)
        serving.look(60.0)
    assert serving.health() is Health.HEALTHY
    serving.units.kill("web.service")
    serving.look()
    assert serving.health() is Health.UNHEALTHY


def test_ten_calm_minutes_forgive(serving: World) -> None:
    """Old falls do not count for ever."""
    for _ in range(5):
        fall(serving)
        serving.look(60.0)
    serving.look(600.0)
    fall(serving)
    assert serving.health() is Health.HEALTHY


def test_ten_minutes_of_flapping_are_few_writes(serving: World) -> None:
    """Down half of each second: at most 6 writes a minute once it is held, never in while down."""
    bell, writes, last = Bell(), [], ("", "")
    serving.verdicts.rings(bell)
    for half in range(1200):
        if half % 2:
            serving.units.start("web.service")
        else:
            serving.units.kill("web.service")
        serving.look(0.5)
        verdict = serving.verdicts.get()["web"]
        if half % 2 == 0:
            assert verdict.health is Health.UNHEALTHY
        said = (verdict.health.value, verdict.reason)  # what registration writes
        if said != last:
            writes.append(serving.at)
            last = said
    began = writes[0]
    for minute in range(1, 10):
        assert sum(began + 60 * minute <= w < began + 60 * (minute + 1) for w in writes) <= 6


def test_a_service_that_vanishes_and_returns_has_fallen(serving: World) -> None:
    """A source that takes it away and brings it back each time does not get round the hold."""
    found = serving.discovered.get()
    for _ in range(3):
        serving.discovered.set(Discovered())
        serving.look(1.0)
        serving.discovered.set(found)
        serving.look(0.1)
    assert serving.health() is Health.UNHEALTHY
    assert "fell 3 times" in serving.words()


def test_the_proxys_restarts_are_no_falls(serving: World) -> None:
    """Whoever restarts the proxy does not have the services held out for it."""
    live = serving.proxy.get()
    for _ in range(5):
        serving.proxy.set(ProxyState(live=False, words="not ready"))
        serving.look(1.0)
        serving.proxy.set(live)
        serving.look(1.0)
        assert serving.health() is Health.HEALTHY
