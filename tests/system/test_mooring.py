"""A VM moors itself at its first boot, stays while its agent comes and goes, leaves when told."""

from __future__ import annotations

import time
from typing import Callable

import pytest

from tests.load import Load
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.stage import kill_main
from tests.system import harness
from tests.system.fleet import PORT, Fleet

NEXT_BEAT = 2.0  # seconds after an agent's death; the lease has 10


def test_a_vm_moors_from_the_fleets_user_data(
    fleet: Fleet, client: Machine, vm: Callable[..., Machine]
) -> None:
    """A fresh VM with the fleet's user-data and a wrapping token moors without another step;
    others reach its service by mTLS, and by nothing else."""
    web = vm()
    web.run("vmoor", "wait", "--timeout", "60", timeout=90)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
    assert fleet.get(client) == (200, web.name)
    # The service itself, not what passes through to any port: policies and metrics need it.
    assert f"inbound|{PORT}||::" in web.curl_envoy("/clusters")
    with pytest.raises(RigError, match="reset"):
        fleet.rig.run("curl", "-sS", "--max-time", "5", f"http://{web.address}:{PORT}/")


def test_status_tells_that_it_is_moored(fleet: Fleet, web: Machine) -> None:
    """`vmoor status` exits 0 and names mesh, workload, login and service; systemd and the journal
    say it in a sentence."""
    shown = web.run("vmoor", "status").stdout
    mesh = fleet.mesh.rpartition("/")[2]
    for words in (web.name, "MOORED", mesh, f"{fleet.namespace}/{fleet.name}",
                  f"approle {fleet.role_id}", f"http:{PORT}", "healthy"):  # fmt: skip
        assert words in shown
    found = harness.status(web)
    assert (found["state"], found["blocked_at"], found["vm"]) == ("moored", None, web.name)
    assert found["address"] == web.address
    assert harness.status_text(web).startswith("Moored, 1 service in the mesh")
    assert "oored in " in web.journal(harness.AGENT)


@pytest.mark.parametrize("vault", ["vault up", "vault down"])
@pytest.mark.parametrize(
    "command", ["systemctl restart vmoor", harness.REINSTALL], ids=["restart", "apt"]
)
def test_traffic_does_not_notice(
    fleet: Fleet, client: Machine, web: Machine, command: str, vault: str
) -> None:
    """A restart of the agent and a reinstalled package fail no request, keep the entry and the
    proxy's process, and need no Vault."""
    if vault == "vault down":
        fleet.vault.refuse()
    entry, lease = harness.uid(fleet.entry(web)), harness.uid(fleet.lease(web))
    agent = harness.process_of(web)
    with harness.unharmed(web, harness.PROXY), Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.answers) > 50, 20, "requests")
        web.sh(command)
        harness.beats(fleet, web)
        # Without Vault it says that this is a risk.
        states = ("moored",) if vault == "vault up" else ("moored", "at-risk")
        web.wait(lambda: harness.document(web)["state"] in states, 60, "it to be moored")
    assert harness.process_of(web)["MainPID"] != agent["MainPID"]
    assert not load.failed, load.failed[:5]
    assert load.spread() == {web.name: len(load.answers)}
    assert (harness.uid(fleet.entry(web)), harness.uid(fleet.lease(web))) == (entry, lease)
    assert harness.healthy(fleet.entry(web))


def test_a_killed_agent_beats_again_in_time(fleet: Fleet, client: Machine, web: Machine) -> None:
    """After kill -9 of the agent the next beat comes within 2 s; no request fails."""
    with harness.unharmed(web, harness.PROXY), Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.answers) > 50, 20, "requests")
        at = kill_main(web, harness.AGENT)
        died = time.time() - time.monotonic() + at
        web.wait(lambda: fleet.api.renewed(web.name) > died, 20, "a beat", period=0.02)
        took = fleet.api.renewed(web.name) - died
        harness.wait_moored(web)
    assert took <= NEXT_BEAT
    assert not load.failed, load.failed[:5]


def test_stop_leaves_and_start_moors_again(fleet: Fleet, client: Machine, web: Machine) -> None:
    """`systemctl stop vmoor` takes the VM out of the mesh, with its entry, Lease and proxy; a
    start brings it back."""
    web.run("systemctl", "stop", "vmoor")
    assert fleet.entry(web) is None
    assert fleet.lease(web) is None
    client.wait(lambda: not fleet.in_mesh(client, web), 5, "its Envoy to forget the VM")
    web.wait(
        lambda: web.unit_property(harness.PROXY, "ActiveState") == "inactive",
        60,
        "the proxy's end",
    )
    web.run("vmoor", "wait", "--for", "left", "--timeout", "5")
    assert f"{web.name}  LEFT" in web.run("vmoor", "status", check=False).stdout
    web.run("systemctl", "start", "vmoor")
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_a_reboot_leaves_and_comes_back(fleet: Fleet, client: Machine, web: Machine) -> None:
    """A machine that goes down leaves first; at its next boot it moors with the SecretID that it
    unwrapped at its first."""
    web.poweroff()
    assert fleet.entry(web) is None
    assert fleet.lease(web) is None
    client.wait(lambda: not fleet.in_mesh(client, web), 5, "its Envoy to forget the VM")
    unwrapped = [seen for seen in fleet.vault.seen if "unwrap" in seen.request]
    web.boot()
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
    assert [seen for seen in fleet.vault.seen if "unwrap" in seen.request] == unwrapped
