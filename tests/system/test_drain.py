"""Out of the mesh by somebody's will, until he wills otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Callable

import pytest

from tests.load import Load
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import SERVICE, Fleet
from tests.system.harness import AGENT, PROXY
from tests.system.history import condition

OUT_S = 0.5
DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"


@pytest.fixture(scope="module")
def other(fleet: Fleet, client: Machine, module_vm: Callable[..., Machine]) -> Machine:
    """A second VM of the service, which takes the requests meanwhile."""
    other = module_vm()
    harness.wait_moored(other)
    client.wait(lambda: fleet.in_mesh(client, other), harness.PATIENCE, "the endpoint")
    return other


@pytest.fixture(autouse=True)
def _resumed(fleet: Fleet, client: Machine, web: Machine) -> Iterator[None]:
    yield
    web.run("vmoor", "resume")
    web.run("vmoor", "resume", "--service", SERVICE)
    client.wait(lambda: fleet.in_mesh(client, web), harness.PATIENCE, "the endpoint")


def drained_by(fleet: Fleet, vm: Machine) -> str:
    lease = fleet.lease(vm)
    assert lease is not None
    return str((lease["metadata"].get("annotations") or {}).get("vmoor.io/drained", ""))


def test_a_drained_vm_is_out_at_once_and_no_request_fails(
    fleet: Fleet, client: Machine, web: Machine, other: Machine
) -> None:
    """`vmoor drain --wait` returns when the mesh has seen it and nothing is open; the VM beats on,
    is checked on, and its Lease and `status` say who drained it; `vmoor resume` ends it."""
    entry = harness.uid(fleet.entry(web))
    with harness.unharmed(web, AGENT, PROXY), Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.spread()) == 2, 20, "answers of both")
        began = time.monotonic()
        said = web.run("vmoor", "drain", "--wait").stdout
        took = time.monotonic() - began
        assert not fleet.in_mesh(client, web)
        assert "out of the mesh and nothing open" in said
        print(f"\ndrain --wait took {took:.2f} s: {said.strip()}")
        assert took <= 2.0
        assert condition(fleet.entry(web))["reason"] == "Drained"
        assert condition(fleet.entry(web))["message"] == "drained by root"
        harness.beats(fleet, web)
        assert drained_by(fleet, web).startswith("root 20")
        shown = web.run("vmoor", "status", check=False)
        assert f"{web.name}  DRAINED by root" in shown.stdout
        assert "healthy" in shown.stdout
        assert harness.status_text(web) == "Drained by root (vmoor resume)"
        web.run("vmoor", "wait", "--for", "drained", "--timeout", "5")
        with pytest.raises(RigError, match="not moored"):
            web.run("vmoor", "wait", "--timeout", "0")
        web.run("vmoor", "resume")
        client.wait(lambda: fleet.in_mesh(client, web), 5, "the endpoint")
        harness.beats(fleet, web, 1)
        assert drained_by(fleet, web) == ""
    assert load.failed == []
    assert harness.uid(fleet.entry(web)) == entry


@pytest.mark.parametrize("verb", ["restart", "reboot", "kill"])
def test_it_stays_drained(fleet: Fleet, client: Machine, web: Machine, verb: str) -> None:
    """Over a restart and a death of the agent, and over a reboot: not once in the mesh."""
    web.run("vmoor", "drain", "--wait")
    if verb == "reboot":
        web.reboot()
    elif verb == "restart":
        web.run("systemctl", "restart", AGENT)
    else:
        web.run("systemctl", "kill", "-s", "KILL", AGENT)
    seen = []

    def drained() -> bool:
        seen.append(fleet.in_mesh(client, web))
        found = harness.document(web)
        return found.get("state") == "drained" and found["written"] > began

    began = time.time()
    web.wait(drained, 60, "it to be drained", period=0.02)
    harness.beats(fleet, web, 1)
    assert True not in seen
    assert condition(fleet.entry(web))["reason"] == "Drained"
    assert drained_by(fleet, web).startswith("root 20")


def test_one_service_is_drained_alone(fleet: Fleet, client: Machine, web: Machine) -> None:
    """The other one stays in the mesh, the VM stays moored, and its Lease says nothing."""
    api = {"services": {"api": {"port": 22, "checks": [{"tcp": True}]}}}
    harness.configure(web, api, DROP_IN)
    web.run("systemctl", "reload", AGENT)
    web.wait(lambda: harness.healthy(fleet.entry(web, "api")), 20, "the other service")
    web.run("vmoor", "drain", "--service", SERVICE, "--wait")
    assert not fleet.in_mesh(client, web)
    assert harness.healthy(fleet.entry(web, "api"))
    assert drained_by(fleet, web) == ""
    shown = web.run("vmoor", "status").stdout
    assert f"{SERVICE} is drained by root" in shown
    assert "MOORED" in shown
    web.run("vmoor", "resume", "--service", SERVICE)
    client.wait(lambda: fleet.in_mesh(client, web), 5, "the endpoint")
    web.run("rm", DROP_IN)
    web.run("systemctl", "reload", AGENT)


def test_who_may_not_drain_is_told(fleet: Fleet, web: Machine) -> None:
    """Only root and the agent's own user; a service that is not there is named."""
    with pytest.raises(RigError, match="only root may"):
        web.run("vmoor", "drain", user="nobody")
    with pytest.raises(RigError, match="no such service, only web"):
        web.run("vmoor", "drain", "--service", "wbe")
    assert harness.healthy(fleet.entry(web))
