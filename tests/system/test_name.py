"""One name is one VM, and one address: the lock on them, and what a boot finds of the last."""

from __future__ import annotations

import time
from typing import Callable, Optional

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Document, Fleet
from tests.system.history import condition

BEAT_S = 3.5  # 3 s, a tenth of jitter, and a look each 0.1 s


@pytest.fixture(scope="module")
def second(module_vm: Callable[..., Machine]) -> Machine:
    """A VM that waits for a SecretID; tests give it the name of the first."""
    return module_vm(secret_id="none")


def _start_as(fleet: Fleet, second: Machine, web: Machine) -> None:
    harness.cold_start(second, fleet.config(vm={"name": web.name}), fleet.secret_id())


def _holder(fleet: Fleet, vm: Machine) -> str:
    return str((fleet.lease(vm) or {})["spec"]["holderIdentity"])


def _written(entry: Optional[Document]) -> tuple[object, ...]:
    """Who wrote what; not whether the VM's own proxy lists it, which it may learn meanwhile."""
    assert entry is not None
    meta = entry["metadata"]
    return (meta["uid"], meta["labels"], meta["annotations"], entry["spec"], condition(entry))


def test_a_reboot_leaves_first_and_moors_again(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Entry and Lease of before are deleted; the SecretID that was unwrapped once logs in."""
    entry, lease = harness.uid(fleet.entry(web)), harness.uid(fleet.lease(web))
    web.reboot()
    harness.wait_moored(web)
    assert harness.uid(fleet.entry(web)) != entry
    assert harness.uid(fleet.lease(web)) != lease
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
    assert fleet.get(client) == (200, web.name)


def test_a_reboot_without_vault_waits_for_it(fleet: Fleet, client: Machine, web: Machine) -> None:
    """Out of the mesh, told, and moored by itself once Vault is back."""
    fleet.vault.refuse()
    web.reboot()
    harness.told(web, "identity", "connection refused")
    assert fleet.entry(web) is None
    assert fleet.lease(web) is None
    with harness.unharmed(web):
        fleet.vault.clear()
        harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_an_old_word_does_not_survive_a_power_cut(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Booted within the lease, the VM takes its old Healthy=True back before it has the lock."""
    old, entry = _holder(fleet, web), harness.uid(fleet.entry(web))
    web.power_cut()
    assert harness.healthy(fleet.entry(web))
    web.boot()
    web.wait(lambda: not harness.healthy(fleet.entry(web)), 60, "the old word to go")
    assert condition(fleet.entry(web))["reason"] == "Rebooted"
    assert _holder(fleet, web) == old
    client.wait(lambda: not fleet.in_mesh(client, web), 20, "the endpoint to go")
    harness.wait_moored(web)
    assert _holder(fleet, web) != old
    assert harness.uid(fleet.entry(web)) == entry
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_a_second_vm_of_the_same_address_is_refused(
    fleet: Fleet, client: Machine, web: Machine, second: Machine
) -> None:
    """It tells so and registers nothing; the first serves on, and restarts as it likes."""
    with harness.kept(fleet, client, web):
        entry = _written(fleet.entry(web))
        _start_at(fleet, second, web.address)
        words = rf"cannot register under {web.address}: VM {web.name} \(.*\) lives"
        harness.told(second, "address", words, remedy=r"vm\.address")
        harness.beats(fleet, web, 2)
        assert fleet.entry(second) is None
        assert _written(fleet.entry(web)) == entry
        assert fleet.get(client) == (200, web.name)
    web.run("systemctl", "restart", "vmoor")
    harness.wait_moored(web)
    harness.told(second, "address", words)
    assert fleet.entry(second) is None


def test_the_address_is_taken_over_when_the_first_is_gone(
    fleet: Fleet, client: Machine, web: Machine, second: Machine
) -> None:
    """The refused VM registers by itself after the first one's end, and the other way round."""
    _start_at(fleet, second, web.address)
    harness.told(second, "address", f"cannot register under {web.address}")
    with harness.unharmed(second):
        web.power_cut()
        harness.wait_moored(second)
    entry = fleet.entry(second)
    assert entry is not None
    assert entry["spec"]["address"] == web.address
    web.boot()
    harness.told(web, "address", rf"cannot register under {web.address}: VM {second.name} ")
    assert not harness.healthy(fleet.entry(web))
    with harness.unharmed(web):
        second.run("systemctl", "stop", "vmoor")
        harness.wait_moored(web)
    client.wait(lambda: fleet.get(client) == (200, web.name), 20, "an answer", period=0.1)


def test_lists_that_hang_delay_no_beat(fleet: Fleet, client: Machine, web: Machine) -> None:
    """A VM that cannot ask for its address keeps its lease and tells what it waits for."""
    fleet.kube.hang(match=r"GET .*/leases\?.*address")
    web.reboot()
    harness.told(web, "address", "no complete answer within")
    term = (fleet.lease(web) or {})["spec"]["acquireTime"]
    began = time.monotonic()
    harness.beats(fleet, web, 5)
    assert time.monotonic() - began < 5 * BEAT_S
    assert (fleet.lease(web) or {})["spec"]["acquireTime"] == term
    assert harness.document(web)["heartbeat"]["held"]
    assert fleet.entry(web) is None
    with harness.unharmed(web):
        fleet.kube.clear()
        harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def _start_at(fleet: Fleet, second: Machine, address: str) -> None:
    harness.cold_start(second, fleet.config(vm={"address": address}), fleet.secret_id())


@pytest.mark.parametrize("cloned", [False, True], ids=["own machine-id", "cloned machine-id"])
def test_a_second_vm_of_the_same_name_is_refused(
    fleet: Fleet, client: Machine, web: Machine, second: Machine, cloned: bool
) -> None:
    """It tells so and writes nothing; the first serves on."""
    if cloned:
        second.write("/etc/machine-id", web.read("/etc/machine-id"))
    with harness.kept(fleet, client, web):
        entry, holder = _written(fleet.entry(web)), _holder(fleet, web)
        _start_as(fleet, second, web)
        words = "another machine lives under this VM's name"
        harness.told(second, "heartbeat", words, remedy="another vm.name")
        harness.beats(fleet, web, 2)
        assert _written(fleet.entry(web)) == entry
        assert _holder(fleet, web) == holder
        assert fleet.get(client) == (200, web.name)


def test_the_name_is_taken_over_when_the_first_is_gone(
    fleet: Fleet, client: Machine, web: Machine, second: Machine
) -> None:
    """The refused VM moors by itself after the first one's end."""
    _start_as(fleet, second, web)
    harness.told(second, "heartbeat", "another machine lives under this VM's name")
    with harness.unharmed(second):
        web.power_cut()
        harness.wait_moored(second)
    entry = fleet.entry(web)
    assert entry is not None
    assert entry["spec"]["address"] == second.address
    client.wait(lambda: fleet.in_mesh(client, second), 20, "the endpoint")
    assert not fleet.in_mesh(client, web)
    assert fleet.get(client) == (200, second.name)
