from __future__ import annotations

import pytest
from vmoor.model.lease import Pace
from vmoor.model.reaper import fleet


@pytest.mark.parametrize(
    ("vms", "interval", "lasts"),
    [(0, 3.0, 10), (900, 3.0, 10), (901, 3.1, 11), (3000, 10.0, 31), (10_000, 33.4, 102),
     (100_000, 39.0, 118)],
)  # fmt: skip
def test_the_budget_sets_the_beat(vms: int, interval: float, lasts: int) -> None:
    """300 beats a second; a lease is three of them and a second, never over 120 s."""
    assert fleet.interval(vms) == interval
    assert Pace(interval).duration == lasts


@pytest.mark.parametrize(
    ("said", "obeyed"),
    [
        ("10", 10.0),
        ("0", 1.0),
        ("-5", 1.0),
        ("900", 39.0),
        ("nan", 3.0),
        ("", 3.0),
        ("1e999", 3.0),
    ],
)
def test_an_agent_obeys_within_bounds(said: str, obeyed: float) -> None:
    """Whoever may write that Lease can neither stop the beats nor make a storm of them."""
    thing = {"metadata": {"annotations": {fleet.INTERVAL: said}}}
    assert fleet.obeyed(thing) == obeyed


def test_without_a_reaper_it_is_three_seconds() -> None:
    """No Lease, no annotation."""
    assert fleet.obeyed(None) == 3.0
    assert fleet.obeyed({"metadata": {}}) == 3.0
