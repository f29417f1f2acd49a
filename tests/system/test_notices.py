"""A cloud announces the end of a VM, which is gone from the mesh before it is gone."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests.clouds import SPOT, Metadata
from tests.load import Load
from tests.rig import inside, network
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT, PROXY

DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"
LOOK_S = 5.0  # between two looks of the agent at the metadata
OUT_S = 1.0


def listening(fleet: Fleet, name: str) -> Metadata:
    """A metadata service at the router's address, which only the VMs of the rig reach."""
    listener = inside.call(
        fleet.rig.network.netns_path, lambda: socket.create_server((network.ADDRESS, 0))
    )
    cloud = Metadata(listener)
    cloud.name = name
    return cloud


def keys(cloud: Metadata, which: str) -> dict[str, Any]:
    """The configuration; each hook tells the test by an HTTP request, as it would tell a cloud."""

    def hook(name: str) -> list[str]:
        said = f'"{name} $VMOOR_VM: $VMOOR_REASON"'
        return ["/bin/sh", "-c", f"exec curl -sSf -X PUT --data {said} {cloud.url}/told"]

    return {
        "leave": {"notices": which, "metadata": cloud.url},
        "hooks": {name: hook(name) for name in ("moored", "drained")},
    }


@pytest.fixture(scope="module")
def cloud(fleet: Fleet) -> Iterator[Metadata]:
    with listening(fleet, "spot-1") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def spot(
    fleet: Fleet, client: Machine, cloud: Metadata, module_vm: Callable[..., Machine]
) -> Machine:
    """The VM that its cloud takes away, beside `web`, which hears of no cloud."""
    fleet.without_retries()
    spot = module_vm(drop_in=keys(cloud, "aws"))
    harness.wait_moored(spot)
    back(fleet, client, spot, cloud)
    assert cloud.told == [f"moored {spot.name}: "]
    return spot


def back(fleet: Fleet, client: Machine, vm: Machine, cloud: Metadata) -> None:
    """In the mesh, and its hook has said so."""
    client.wait(lambda: fleet.in_mesh(client, vm), 20, "the endpoint")
    vm.wait(lambda: cloud.told[-1:] == [f"moored {vm.name}: "], 10, "the hook")


@contextlib.contextmanager
def announced(
    fleet: Fleet, client: Machine, vm: Machine, cloud: Metadata, who: str
) -> Iterator[None]:
    """The block announces it: then the VM is out and its hook has run, and no request failed."""
    cloud.told.clear()
    with harness.unharmed(vm, AGENT, PROXY), Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.spread()) == 2 and len(load.answers) > 100, 20, "answers")
        began = time.monotonic()
        yield
        client.wait(lambda: not fleet.in_mesh(client, vm), 20, "its Envoy to forget the VM")
        out = time.monotonic() - began
        vm.wait(lambda: cloud.told, 20, "the hook")
        told = time.monotonic() - began
        begun = len(load.answers)
        client.wait(lambda: len(load.answers) > begun + 200, 20, "a second more")
    print(f"\n{who}: out after {out:.2f} s, hook after {told:.2f} s, {len(load.answers)} requests")
    assert cloud.told == [f"drained {vm.name}: {who}"]
    assert load.failed == []
    assert out < LOOK_S + OUT_S
    assert harness.status_text(vm) == f"Drained by {who}"


def test_a_spot_notice_takes_the_vm_out_and_no_request_fails(
    fleet: Fleet, client: Machine, web: Machine, spot: Machine, cloud: Metadata
) -> None:
    """The drain of `vmoor drain`, in the cloud's name; its hook runs once; no person ends it. If
    the cloud takes it back, the VM is back by itself."""
    with announced(fleet, client, spot, cloud, "AWS spot notice"):
        cloud.spot = SPOT
    lease = fleet.lease(spot)
    assert lease is not None
    assert lease["metadata"]["annotations"]["vmoor.io/drained"].startswith("AWS spot notice 20")
    with pytest.raises(RigError, match="it is out for the AWS spot notice"):
        spot.run("vmoor", "resume")
    spot.run("systemctl", "restart", AGENT)
    harness.beats(fleet, spot)
    spot.wait(lambda: harness.document(spot).get("state") == "drained", 20, "it to be drained")
    assert not fleet.in_mesh(client, spot)
    assert len(cloud.told) == 1
    cloud.spot = None
    back(fleet, client, spot, cloud)
    assert len(cloud.told) == 2


@pytest.mark.parametrize("which", ["gce", "azure"])
def test_so_do_the_notices_of_other_clouds(
    fleet: Fleet, client: Machine, web: Machine, spot: Machine, cloud: Metadata, which: str
) -> None:
    """Google's is waited for, so it takes no look's time; Azure's may be called off."""
    began = harness.now(spot)
    harness.configure(spot, keys(cloud, which), DROP_IN)
    spot.run("systemctl", "reload", AGENT)
    spot.wait(
        lambda: harness.step(spot, "notices").get("words") == f"none of {which}", 20, "its cloud"
    )
    assert "Configuration accepted" in harness.journal_since(spot, began)
    if which == "gce":
        with announced(fleet, client, spot, cloud, "GCE preemption"):
            cloud.preempt()
        harness.configure(spot, keys(cloud, "aws"), DROP_IN)
        spot.run("systemctl", "restart", AGENT)
    else:
        with announced(fleet, client, spot, cloud, "Azure Preempt event"):
            cloud.event("Preempt")
        cloud.events = []
    back(fleet, client, spot, cloud)


def test_metadata_that_do_not_answer_harm_nobody(
    fleet: Fleet, client: Machine, web: Machine, spot: Machine, cloud: Metadata
) -> None:
    """Not even over a restart of the agent: it is told, and the VM stays in the mesh."""
    harness.wait_moored(spot)
    cloud.status = 500
    try:
        with harness.unharmed(spot, PROXY), Load(client, fleet.vip, fleet.host) as load:
            client.wait(lambda: len(load.spread()) == 2, 20, "answers of both")
            spot.run("systemctl", "restart", AGENT)
            harness.told(spot, "notices", "status 500")
            harness.beats(fleet, spot, 5)
            assert fleet.in_mesh(client, spot)
    finally:
        cloud.status = 0
    assert load.failed == []
    harness.wait_moored(spot)


def test_a_vm_of_a_warm_pool_registers_when_it_is_in_service(
    fleet: Fleet, client: Machine, vm: Callable[..., Machine]
) -> None:
    """Until then it has no entry; at a scale-in the hook can complete the action."""
    with listening(fleet, "") as cloud:
        cloud.target = "Warmed:Running"
        warm = vm(drop_in=keys(cloud, "aws"))
        warm.wait(lambda: harness.document(warm).get("state") == "drained", 60, "its warm pool")
        harness.beats(fleet, warm)
        assert fleet.entry(warm) is None
        assert harness.status_text(warm) == "Drained by AWS warm pool"
        warm.wait(lambda: cloud.told, 10, "the hook")
        cloud.target = "InService"
        took = warm.wait(lambda: fleet.in_mesh(client, warm), 20, "the endpoint")
        print(f"\nin the mesh {took:.2f} s after InService")
        warm.wait(lambda: len(cloud.told) == 2, 10, "the hook")
        cloud.target = "Terminated"
        warm.wait(lambda: len(cloud.told) == 3, 20, "the hook")
        assert not fleet.in_mesh(client, warm)
        name = warm.name
        assert cloud.told == [
            f"drained {name}: AWS warm pool", f"moored {name}: ", f"drained {name}: AWS scale-in",
        ]  # fmt: skip
        warm.poweroff()
        assert fleet.entry(warm) is None
