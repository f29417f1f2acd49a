"""What the reaper's account may do in a real cluster, and what agents may see of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests import mesh_setup, reapers
from tests.contract.test_admin import (
    APPLY,
    ENTRIES,
    LEASES,
    Caller,
    caller,
    entry,
    health,
    lease,
    version,
)
from tests.mesh_setup import Mooring
from tests.rig.process import wait_until
from tests.rig.rig import Rig

ONE = f"{ENTRIES.format('shop')}/web.vm-1"


@pytest.fixture(scope="module")
def mooring() -> Iterator[Mooring]:
    with Rig() as rig:
        mooring = mesh_setup.moor_ready(rig)
        reapers.prepare(rig, mooring.sh)
        yield mooring


@pytest.fixture(scope="module")
def rig(mooring: Mooring) -> Rig:
    return mooring.rig


@pytest.fixture(scope="module")
def reaper(rig: Rig) -> Caller:
    """The API server takes some seconds to put a policy in force."""
    reaper, admin = caller(rig, "vmoor-reaper", "vmoor-system"), Caller(rig, rig.kube.token)
    admin.apply(entry())
    wrong = said("False", "Mood")
    wait_until(lambda: denied(reaper.apply(wrong, status=True)), 30, "the policy to be in force")
    rig.kubectl("delete", "workloadentries", "-n", "shop", "--all")
    return reaper


@pytest.fixture
def admin(rig: Rig) -> Iterator[Caller]:
    yield Caller(rig, rig.kube.token)
    rig.kubectl("delete", "workloadentries,leases", "-n", "shop", "--all")


def said(status: str, reason: str) -> dict[str, Any]:
    body = health()
    body["status"]["conditions"] = [{"type": "Healthy", "status": status, "reason": reason}]
    return body


def denied(answer: tuple[int, str]) -> bool:
    return answer[0] == 422 and "'vmoor-reaper'" in answer[1]


def test_it_takes_out_what_is_marked(reaper: Caller, admin: Caller) -> None:
    """Healthy=False with its own reason, then the delete."""
    assert admin.apply(entry())[0] == 201
    assert reaper.apply(said("False", "LeaseExpired"), status=True)[0] == 200
    assert reaper("DELETE", ONE)[0] == 200


@pytest.mark.parametrize(("status", "reason"), [("True", "LeaseExpired"), ("False", "Mood")])
def test_it_says_nothing_else(reaper: Caller, admin: Caller, status: str, reason: str) -> None:
    """It can put nobody into the mesh, nor speak for an agent."""
    assert admin.apply(entry())[0] == 201
    assert denied(reaper.apply(said(status, reason), status=True))


def test_what_is_not_marked_is_out_of_reach(rig: Rig, reaper: Caller, admin: Caller) -> None:
    """People's and istiod's entries, and the Leases of nodes and controllers."""
    assert admin.apply(entry(labels={}))[0] == 201
    assert denied(reaper.apply(said("False", "LeaseExpired"), status=True))
    assert denied(reaper("DELETE", ONE))
    assert admin("POST", LEASES.format("shop"), lease("node-1", {}))[0] == 201
    node = lease("node-1", {})
    node["metadata"]["resourceVersion"] = version(rig, "lease/node-1")
    assert denied(reaper("PUT", f"{LEASES.format('shop')}/node-1", node))
    assert denied(reaper("DELETE", f"{LEASES.format('shop')}/node-1"))


def test_it_neither_makes_nor_changes_entries(reaper: Caller, admin: Caller) -> None:
    """There is no such right: only the status, and only of what is there."""
    assert reaper.apply(entry())[0] == 403
    assert admin.apply(entry())[0] == 201
    moved = {"spec": {"address": "198.18.0.99"}}
    assert reaper("PATCH", ONE + APPLY, moved, "application/merge-patch+json")[0] == 403
    assert reaper("POST", LEASES.format("shop"), lease())[0] == 403


@pytest.mark.parametrize("path", ["/api/v1/secrets", "/api/v1/pods", "/api/v1/nodes"])
def test_it_reads_nothing_else(reaper: Caller, path: str) -> None:
    """Leases and entries are all that it sees of a cluster."""
    assert reaper("GET", path)[0] == 403


def test_an_agent_sees_the_fleets_lease_only(rig: Rig, admin: Caller) -> None:
    """Of namespace vmoor-system it may get that one; it is not there before a reaper was."""
    agent, leases = caller(rig, "web-vmoor"), LEASES.format("vmoor-system")
    assert agent("GET", f"{leases}/vmoor-fleet")[0] == 404
    assert agent("GET", f"{leases}/vmoor-reaper")[0] == 403
    assert agent("GET", leases)[0] == 403
    assert agent("PUT", f"{leases}/vmoor-fleet", lease("vmoor-fleet"))[0] == 403
