from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vmoor.model import metrics
from vmoor.model.drain import Drained, Order
from vmoor.model.health import Health, Verdict
from vmoor.model.lease import Beat, Pace
from vmoor.model.sight import Sight
from vmoor.model.status import Snapshot

from tests.unit.status.test_status import GOOD, with_step


def told(snap: Snapshot) -> Mapping[str, float]:
    """Each sample by its name and the values of its labels."""
    return {
        " ".join([family.name, *labels.values()]): float(value)
        for family in metrics.of_agent(snap)
        for labels, value in family.samples
    }


def judged(verdict: Verdict) -> Mapping[str, float]:
    return told(replace(GOOD, verdicts={"web": verdict}))


def test_all_that_is_told_of_a_moored_vm() -> None:
    """Names and values, as an operator writes them into alerts."""
    steps = {
        f"vmoor_step_failing {name}": 0.0
        for name in ("config", "identity", "discovery", "proxy", "heartbeat", "address", "health",
                     "registration")
    }  # fmt: skip
    assert told(replace(GOOD, pace=Pace(reaper="watching"))) == {
        **steps,
        "vmoor_build_info 0.1.0": 1,
        "vmoor_vm_info i-0abc mesh-a shop/web eu-west-1/eu-west-1a": 1,
        "vmoor_state moored": 1,
        "vmoor_state at-risk": 0,
        "vmoor_state drained": 0,
        "vmoor_state not-moored": 0,
        "vmoor_proxy_live": 1,
        "vmoor_lease_held": 1,
        "vmoor_heartbeat_timestamp_seconds": 1_000_099,
        "vmoor_heartbeat_interval_seconds": 3,
        "vmoor_reaper_watching": 1,
        "vmoor_token_expiry_timestamp_seconds vault": 1_001_540,
        "vmoor_service_healthy web": 1,
        "vmoor_service_degraded web": 0,
        "vmoor_service_held web": 0,
        "vmoor_service_last_change_timestamp_seconds web": 1_000_040,
        "vmoor_service_drained web": 0,
        "vmoor_service_in_mesh web": 1,
    }


def test_what_is_not_known_is_not_told() -> None:
    """Neither well nor ill: a service not checked yet, no beat yet, no look at a reaper."""
    fresh = replace(GOOD, verdicts={}, sights={}, beat=Beat(), identity={}, machine=None)
    unknown = replace(fresh, verdicts={"web": Verdict(Health.UNKNOWN, "Checking", "not yet")})
    for snap in (fresh, unknown):
        names = {name.partition(" ")[0] for name in told(snap)}
        assert {name for name in names if name.startswith("vmoor_service")} == {
            "vmoor_service_drained"
        }
        assert names.isdisjoint(
            {"vmoor_heartbeat_timestamp_seconds", "vmoor_reaper_watching", "vmoor_vm_info",
             "vmoor_token_expiry_timestamp_seconds"}
        )  # fmt: skip


def test_a_service_that_is_held_out() -> None:
    """It is told apart from one that only fails."""
    failing = judged(Verdict(Health.UNHEALTHY, "CheckFailed", "connection refused", 50.0))
    assert (failing["vmoor_service_healthy web"], failing["vmoor_service_held web"]) == (0, 0)
    held = judged(Verdict(Health.UNHEALTHY, "Flapping", "passes again", 50.0))
    assert (held["vmoor_service_healthy web"], held["vmoor_service_held web"]) == (0, 1)


def test_a_step_that_fails_and_a_service_that_is_drained() -> None:
    """What `status` tells is told here, too."""
    snap = with_step(GOOD, "heartbeat", "fail", "cannot reach the API server")
    found = told(snap)
    assert found["vmoor_step_failing heartbeat"] == found["vmoor_state at-risk"] == 1
    found = told(replace(GOOD, drained=Drained(services={"web": Order("root", 1.0)})))
    assert found["vmoor_service_drained web"] == 1
    assert told(replace(GOOD, sights={"web": Sight()}))["vmoor_service_in_mesh web"] == 0


def test_no_secret_is_a_label() -> None:
    """Nor anything else of what identity holds."""
    labels = {
        value
        for family in metrics.of_agent(replace(GOOD, identity={"role": "hunter2"}))
        for sample, _ in family.samples
        for value in sample.values()
    }
    assert "hunter2" not in labels
