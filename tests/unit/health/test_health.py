"""The health loop, pass by pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vmoor.controllers import health
from vmoor.model import health as decisions
from vmoor.model.discovered import Discovered
from vmoor.model.health import Health, Lapse, Verdict
from vmoor.model.proxy import ProxyState
from vmoor.model.service import Check, HttpProbe, TcpProbe, UnitProbe
from vmoor.runtime.bell import Bell

from tests.unit.health.world import API, HTTP, WEB, World


def test_a_dead_unit_is_out_in_the_next_pass(serving: World) -> None:
    """The signal alone decides: no threshold, no look at any port."""
    scans = serving.prober.scans
    serving.units.kill("web.service")
    assert serving.look() == health.CALM_S
    words = "web.service is failed (failed, signal)"
    assert serving.verdicts.get()["web"] == Verdict(
        Health.UNHEALTHY, "UnitDead", words, since=100.0, lapse=Lapse(100.0, words)
    )
    assert serving.words() == words
    assert serving.prober.scans == scans


def test_a_death_between_two_looks_is_seen(serving: World) -> None:
    """A unit that was restarted before anyone looked is unhealthy once, then as it is."""
    serving.units.kill("web.service", restarted=True)
    assert serving.look() == pytest.approx(0.05)
    assert serving.words() == "web.service died and was restarted"
    serving.look(0.05)
    assert serving.health() is Health.HEALTHY


def test_healthy_only_once_the_port_listens() -> None:
    """A started unit is looked at every 50 ms, later every 500 ms, then at its period."""
    world = World(WEB)
    world.units.start("web.service")
    assert world.look() == pytest.approx(0.05)
    assert world.words() == "web.service runs, but nothing listens on 8080"
    assert world.look(4.9) == pytest.approx(0.05)
    assert world.look(0.2) == pytest.approx(0.5)
    assert world.look(60.0) == pytest.approx(5.0)
    world.prober.ports.add(8080)
    assert world.look(5.0) == pytest.approx(5.0)
    assert world.health() is Health.HEALTHY


def test_what_only_loopback_reaches_stays_out() -> None:
    """Its checks pass by way of 127.0.0.1, the mesh's requests would not: told, with the cure."""
    world = World(WEB, API)
    world.units.start("web.service")
    world.prober.ports |= {8080, 9090}
    world.prober.hidden |= {8080, 9090}
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    for name in ("web", "api"):
        assert world.verdicts.get()[name].reason == "LoopbackOnly"
        assert "bind it to 0.0.0.0" in world.words(name)
    world.prober.hidden.clear()
    world.settle(5.0)
    assert (world.health(), world.health("api")) == (Health.HEALTHY, Health.HEALTHY)


def test_what_is_mended_comes_in_with_the_next_look() -> None:
    """Its check has passed all the while, so the look brings no news of the check itself."""
    world = World(replace(API, checks=(replace(HTTP, period=1.0),)))
    world.prober.ports.add(9090)
    world.prober.hidden.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    for _ in range(3):
        world.settle(1.0)
    world.prober.hidden.clear()
    world.settle(1.0)
    assert world.health("api") is Health.HEALTHY


def test_a_port_that_closes_is_seen_at_the_period(serving: World) -> None:
    """A unit that runs on without listening is out."""
    serving.prober.ports.clear()
    serving.look(1.0)
    assert serving.health() is Health.HEALTHY
    serving.look(4.0)
    assert serving.verdicts.get()["web"].reason == "NotListening"


def test_a_ring_in_vain_reads_nothing(serving: World) -> None:
    """Passes between two looks touch neither /proc nor the verdicts."""
    bell = Bell()
    serving.verdicts.rings(bell)
    scans = serving.prober.scans
    assert serving.look(2.0) == pytest.approx(3.0)
    assert serving.prober.scans == scans
    assert not bell.wait(0)


def test_a_unit_not_read_yet_is_unknown() -> None:
    """Before systemd answered the cluster keeps the last word."""
    world = World(replace(WEB, checks=(Check("unit", UnitProbe("db.service", (1,))),)))
    assert world.look() == health.CALM_S
    assert world.health() is Health.UNKNOWN


def test_probes_follow_period_and_thresholds() -> None:
    """First look at once, phase by lot, then each period; two failures put it out."""
    world = World(API)
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.look()
    assert world.health("api") is Health.UNKNOWN
    assert world.look() == pytest.approx(2.5)
    assert world.health("api") is Health.HEALTHY
    world.prober.statuses[9090, "/healthz"] = 503
    world.settle(2.5)
    assert world.words("api") == "503, want 200-399 (1/2)"
    assert world.look() == pytest.approx(5.0)
    world.settle(5.0)
    assert (world.health("api"), world.words("api")) == (Health.UNHEALTHY, "503, want 200-399")


def test_a_slow_probe_is_not_doubled() -> None:
    """While one look runs there is no second, and nothing else waits for it."""
    world = World(API, WEB)
    world.prober.hold = True
    world.look()
    world.look(50.0)
    assert world.prober.open() == 1
    assert world.health("web") is Health.UNHEALTHY


def test_every_check_must_pass() -> None:
    """Checks are AND-ed; the first one that fails gives the reason."""
    world = World(replace(API, checks=(HTTP, Check("tcp 9091", TcpProbe(9091)))))
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    assert world.health("api") is not Health.HEALTHY
    assert sorted(world.prober.asked) == ["http 9090 /healthz", "tcp 9091"]


def test_a_proxy_that_is_down_puts_all_out_and_back(serving: World) -> None:
    """The proxy's state is asked in each pass and never remembered."""
    serving.proxy.set(ProxyState(live=False, words="failed: exit-code"))
    serving.look()
    assert serving.words() == "the proxy is not ready: failed: exit-code"
    serving.proxy.set(ProxyState(live=True, words="live"))
    serving.look()
    assert serving.health() is Health.HEALTHY


def test_an_unlooked_at_proxy_leaves_it_unknown(serving: World) -> None:
    """After an agent's restart nothing is said before the proxy was seen."""
    serving.proxy.set(ProxyState())
    serving.look()
    assert serving.health() is Health.UNKNOWN


def test_a_reload_keeps_what_did_not_change() -> None:
    """A changed service starts anew, the others keep their state, removed ones are forgotten."""
    world = World(API, WEB)
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    moved = replace(WEB, checks=(Check("tcp 1", TcpProbe(1), initial_delay=9.0),))
    world.discovered.set(Discovered((replace(API, labels={"v": "2"}), moved)))
    assert world.look() == pytest.approx(2.5)
    assert (world.health("api"), world.health("web")) == (Health.HEALTHY, Health.UNKNOWN)
    world.discovered.set(Discovered((moved,)))
    world.look()
    assert list(world.verdicts.get()) == ["web"]


def test_a_bug_in_one_probe_harms_no_other(serving: World) -> None:
    """It is raised, so that it is counted and told; the other verdicts stand."""
    serving.discovered.set(Discovered((API, WEB)))
    serving.prober.error = RuntimeError("bug")
    serving.look()
    with pytest.raises(RuntimeError, match="bug"):
        serving.look()
    assert (serving.health("web"), serving.health("api")) == (Health.HEALTHY, Health.UNKNOWN)


def test_what_changes_is_told_once(serving: World, caplog: pytest.LogCaptureFixture) -> None:
    """One line per change of health, with the reason."""
    caplog.clear()
    serving.units.kill("web.service")
    serving.look()
    serving.look(1.0)
    assert caplog.messages == ["web is unhealthy: web.service is failed (failed, signal)"]


def test_a_listening_unit_hastens_the_other_checks() -> None:
    """An application that was started is not kept out until the next period of its http check."""
    both = replace(WEB, checks=(*WEB.checks, Check("http /", HttpProbe("/", 8080), period=60.0)))
    world = World(both)
    world.units.start("web.service")
    world.settle()
    assert world.words() == "web.service runs, but nothing listens on 8080"
    world.prober.ports.add(8080)
    world.prober.statuses[8080, "/"] = 200
    world.settle(0.05)
    assert world.health() is Health.HEALTHY


def test_a_restarted_service_is_out_until_its_checks_pass_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It listens, and answers 503 while it warms up: that it was well before counts no more."""
    caplog.set_level("INFO")
    world = World(replace(WEB, checks=(*WEB.checks, Check("http /", HttpProbe("/", 8080)))))
    world.units.start("web.service")
    world.prober.ports.add(8080)
    world.prober.statuses[8080, "/"] = 200
    world.settle()
    assert world.health() is Health.HEALTHY
    world.units.kill("web.service")
    world.look(1.0)
    world.prober.statuses[8080, "/"] = 503
    world.units.start("web.service")
    world.settle(0.05)
    assert world.health() is Health.UNKNOWN
    world.settle(5.1)
    assert world.words() == "503, want 200-399"
    world.prober.statuses[8080, "/"] = 200
    world.settle(5.1)
    assert world.health() is Health.HEALTHY
    assert [line.partition(":")[0] for line in caplog.messages] == [
        "web is healthy", "web is unhealthy", "web is unhealthy", "web is healthy",
    ]  # fmt: skip


def test_a_look_into_a_former_life_says_nothing_of_this_one() -> None:
    """It was under way when the unit died, and passed: who warms up stays out all the same."""
    world = World(replace(WEB, checks=(*WEB.checks, Check("http /", HttpProbe("/", 8080)))))
    world.units.start("web.service")
    world.prober.ports.add(8080)
    world.prober.statuses[8080, "/"] = 200
    world.settle()
    world.prober.hold = True
    world.look(5.0)
    world.units.kill("web.service", restarted=True)
    world.look(0.05)
    world.look(0.05)
    world.prober.hold = False
    world.look()
    assert world.health() is not Health.HEALTHY
    world.prober.statuses[8080, "/"] = 503
    world.settle(0.05)
    assert world.health() is not Health.HEALTHY
    world.prober.statuses[8080, "/"] = 200
    world.settle(5.1)
    assert world.health() is Health.HEALTHY


def test_a_pass_looks_at_what_is_due_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two hundred checks one that ended costs the judgement of its own service."""
    many = [
        replace(API, name=f"s{n}", checks=(replace(HTTP, probe=HttpProbe("/healthz", 9000 + n)),))
        for n in range(200)
    ]
    world = World(*many)
    for n in range(200):
        world.prober.ports.add(9000 + n)
        world.prober.statuses[9000 + n, "/healthz"] = 200
    world.settle()
    judged: list[str] = []
    judge = decisions.judge

    def counted(*given: object) -> Verdict:
        judged.append("one")
        return judge(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(decisions, "judge", counted)
    world.look(0.001)
    assert judged == []


def test_new_words_of_the_same_verdict_are_no_news(serving: World) -> None:
    """ "200 in 4ms" and "200 in 5ms" wake nobody, but `status` shows the newer."""
    bell = Bell()
    serving.verdicts.rings(bell)
    world = serving
    old = world.verdicts.get()["web"]
    world.verdicts.refresh({"web": replace(old, words="active, listening on 8080, still")})
    assert not bell.wait(0)
    assert world.words() == "active, listening on 8080, still"


def test_good_looks_without_news_are_judged_for_their_words_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once in five seconds; a bad one at once, and so is the good one after it."""
    world = World(replace(API, checks=(replace(HTTP, period=1.0),)))
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    judged: list[float] = []
    judge = decisions.judge

    def counted(*given: object) -> Verdict:
        judged.append(world.at)
        return judge(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(decisions, "judge", counted)
    for _ in range(50):
        world.settle(1.0)
    assert 9 <= len(judged) <= 10
    world.prober.statuses[9090, "/healthz"] = 503
    world.settle(1.0)
    assert world.words("api") == "503, want 200-399 (1/2)"
    world.prober.statuses[9090, "/healthz"] = 204
    world.settle(1.0)
    assert world.words("api") == "204 in 1ms"
    world.prober.statuses[9090, "/healthz"] = 200
    for _ in range(5):
        world.settle(1.0)
    assert world.words("api") == "200 in 1ms"


def test_a_look_that_hangs_is_a_failure() -> None:
    """A file on a dead network mount: the last good look does not count for ever."""
    world = World(API)
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    assert world.health("api") is Health.HEALTHY
    world.prober.hold = True
    for _ in range(5):
        world.look(5.0)
    assert world.health("api") is Health.UNHEALTHY
    assert world.prober.open() == 1


def test_a_look_that_has_not_begun_is_no_news() -> None:
    """Others hang in front of it: that is no fault of the service."""
    world = World(API)
    world.prober.ports.add(9090)
    world.prober.statuses[9090, "/healthz"] = 200
    world.settle()
    world.prober.hold, world.prober.begins = True, False
    for _ in range(60):
        world.look(1.0)
    assert world.health("api") is Health.HEALTHY


def test_a_look_that_hangs_is_given_up() -> None:
    """So that another thread takes its place."""
    world = World(API)
    world.prober.hold = True
    for _ in range(30):
        world.look(1.0)
    assert [ticket.given_up for ticket in world.prober.tickets] == [True]
