"""What an application's word means, how long it counts, and what the health loop makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from vmoor.controllers.health import CALM_S
from vmoor.model import ttl
from vmoor.model.discovered import Discovered
from vmoor.model.health import Health
from vmoor.model.ttl import Heard

from tests.unit.health.world import APP, TTL_S, World


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"pass", ("pass", "")),
        (b" warn\tdisk is at 91%\n", ("warn", "disk is at 91%")),
        (b"fail two\nlines\x07", ("fail", "two lines?")),
        (b"fail \xff", ("fail", "\ufffd")),
        (b"fail " + b"x" * 1000, ("fail", "x" * 255 + "…")),
        (b"", None),
        (b"\0pass", None),
        (b"passed", None),
        (b"PASS", None),
        (b'{"state": "pass"}', None),
    ],
)
def test_a_message_is_a_state_and_words(message: bytes, said: object) -> None:
    """What begins with one of three words; the rest is bounded and made printable."""
    assert ttl.parsed(message) == said


def test_the_same_again_in_time_is_no_news() -> None:
    """So that it wakes nobody; late, with other words or another state, it is."""
    first = ttl.heard_again(Heard(), "pass", "", 100.0, TTL_S)
    again = ttl.heard_again(first, "pass", "", 114.0, TTL_S)
    assert again == first
    assert again.at == 114.0
    assert ttl.heard_again(again, "pass", "", 129.0, TTL_S) != first
    assert ttl.heard_again(again, "pass", "busy", 115.0, TTL_S) != first
    assert ttl.heard_again(again, "fail", "", 115.0, TTL_S) != first


class Speaking(World):
    """A VM with an application that speaks for itself."""

    def __init__(self) -> None:
        super().__init__(APP)

    def say(self, said: str, words: str = "", after: float = 0.0) -> float:
        self.at += after
        heard = self.heard.get().get("app", Heard())
        new = ttl.heard_again(heard, said, words, self.at, TTL_S)
        self.heard.refresh({"app": new})
        return self.look()


def test_pass_lasts_for_the_ttl_and_wakes_nobody_before() -> None:
    """Silence takes the service out, one more word brings it back."""
    world = Speaking()
    assert world.say("pass") == TTL_S
    assert (world.health("app"), world.words("app")) == (Health.HEALTHY, "said pass")
    assert world.look(TTL_S - 1) == 1.0
    assert world.health("app") is Health.HEALTHY
    assert world.look(1.0) == CALM_S
    assert (world.health("app"), world.words("app")) == (
        Health.UNHEALTHY,
        "nothing heard for 30s",
    )
    assert world.verdicts.get()["app"].reason == "NothingHeard"
    world.say("pass", after=60.0)
    assert world.health("app") is Health.HEALTHY


def test_what_was_said_in_time_counts_though_it_rang_nobody() -> None:
    """The look that is due reads the newest word."""
    world = Speaking()
    world.say("pass")
    world.at += 10.0
    world.heard.refresh(
        {"app": ttl.heard_again(world.heard.get()["app"], "pass", "", world.at, TTL_S)}
    )
    assert world.look(TTL_S - 10.0) == 10.0
    assert world.health("app") is Health.HEALTHY


def test_fail_is_out_at_once_whatever_the_threshold() -> None:
    """An application that says so is not asked twice."""
    world = Speaking()
    world.say("pass")
    world.say("fail", "no space left")
    verdict = world.verdicts.get()["app"]
    assert (verdict.health, verdict.words, verdict.reason) == (
        Health.UNHEALTHY,
        "no space left",
        "SaidFail",
    )


def test_warn_degrades_and_is_no_failure() -> None:
    """In the mesh, with less weight; so also when it comes from fail, and pass ends it."""
    world = Speaking()
    for before in ("pass", "fail"):
        world.say(before, after=1.0)
        world.say("warn", "disk is at 91%", after=1.0)
        verdict = world.verdicts.get()["app"]
        assert (verdict.health, verdict.degraded) == (Health.HEALTHY, True)
        assert verdict.words == "degraded: disk is at 91%"
    world.say("pass", after=1.0)
    assert not world.verdicts.get()["app"].degraded
    world.say("warn", after=1.0)
    world.look(TTL_S)
    assert world.health("app") is Health.UNHEALTHY, "a warning runs out, too"


def test_a_check_that_is_not_critical_degrades_even_by_fail() -> None:
    """critical: false as with every other check."""
    world = Speaking()
    check = replace(APP.checks[0], critical=False)
    world.discovered.set(Discovered((replace(APP, checks=(check,)),)))
    world.say("fail", "slow")
    verdict = world.verdicts.get()["app"]
    assert (verdict.health, verdict.degraded) == (Health.HEALTHY, True)


def test_before_the_first_word_nothing_is_known_for_one_ttl() -> None:
    """A restart of the agent takes nobody out, and keeps nobody who is silent for ever."""
    world = Speaking()
    assert world.look() == TTL_S
    assert (world.health("app"), world.words("app")) == (Health.UNKNOWN, "nothing heard yet")
    assert world.verdicts.get()["app"].reason == "NothingHeard"
    world.heard.set({"app": Heard(trouble="there is no group app")})
    world.look(TTL_S - 1)
    assert world.health("app") is Health.UNKNOWN
    assert world.words("app") == "nothing heard yet: there is no group app"
    world.look(1.0)
    assert world.health("app") is Health.UNHEALTHY
    assert world.words("app") == "nothing heard for 30s: there is no group app"
