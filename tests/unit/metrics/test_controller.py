from __future__ import annotations

import pytest
from vmoor.controllers.metrics import Metrics
from vmoor.errors import LocalFault


class World:
    """What the configuration wants, and who listens; `busy` addresses refuse."""

    def __init__(self) -> None:
        self.wanted = ""
        self.busy: set[str] = set()
        self.events: list[str] = []
        self.metrics = Metrics(lambda: self.wanted, self.listen)

    def listen(self, address: str) -> Server:
        if address in self.busy:
            raise LocalFault(f"cannot serve metrics on {address}")
        self.events.append(f"listen {address}")
        return Server(self.events)

    def turn(self, wanted: str) -> str:
        self.wanted = wanted
        self.metrics.changed()
        return self.metrics.reconcile().words


class Server:
    def __init__(self, events: list[str]) -> None:
        self._events = events

    def serve(self) -> None:
        self._events.append("serve")

    def interrupt(self) -> None:
        self._events.append("interrupt")

    def close(self) -> None:
        self._events.append("close")


def test_it_serves_where_it_is_wanted() -> None:
    """First it says so, then each pass is a scrape."""
    world = World()
    assert world.turn("a:1") == world.turn("a:1") == "served on a:1"
    assert world.turn("a:1")
    assert world.events == ["listen a:1", "serve", "serve"]


def test_another_address_ends_the_wait_for_a_scrape() -> None:
    """The old one is closed first: it may be the same port."""
    world = World()
    world.turn("a:1")
    world.turn("b:1")
    assert world.turn("") == "not served"
    assert world.turn("") == "not served"
    assert world.events == ["listen a:1", "interrupt", "close", "listen b:1", "interrupt", "close"]


def test_a_busy_port_is_tried_again() -> None:
    """It fails, and comes when the port is free."""
    world = World()
    world.busy = {"a:1"}
    for _ in range(2):
        with pytest.raises(LocalFault, match="a:1"):
            world.turn("a:1")
    world.busy = set()
    assert world.turn("a:1") == "served on a:1"
