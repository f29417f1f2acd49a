"""What the mesh holds of a VM whose address changes, and of its inbound side."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, SERVICE, Fleet

GONE_S = 2.0  # the promise
PATIENCE = 30
CYCLES = 8


@pytest.fixture
def busy() -> Iterator[None]:
    """More work than this machine has processors: istiod's races are lost more often."""
    argv = [sys.executable, "-c", "while True: pass"]
    spinners = [subprocess.Popen(argv) for _ in range(3)]
    yield
    for spinner in spinners:
        spinner.kill()
        spinner.wait()


def inbound(vm: Machine) -> bool:
    """Whether the VM's Envoy takes its service in as what it is, not as plain TCP."""
    return f"\ninbound|{PORT}||::" in "\n" + vm.curl_envoy("/clusters")


def test_the_inbound_side_comes_with_each_recovery(
    fleet: Fleet, client: Machine, web: Machine, busy: None
) -> None:
    """Each time that the service is back, the VM's own proxy knows it as HTTP a second later."""
    for _ in range(CYCLES):
        web.run("systemctl", "kill", "-s", "KILL", "web")
        web.wait(lambda: not harness.healthy(fleet.entry(web)), PATIENCE, "it to go out")
        web.run("systemctl", "start", "web")
        web.wait(lambda: harness.healthy(fleet.entry(web)), 70, "it to come back")
        web.wait(lambda: fleet.in_mesh(client, web), PATIENCE, "its endpoint")
        web.wait(lambda: inbound(web), 2.0, "its inbound cluster")
        time.sleep(0.3)
        assert inbound(web)
        web.run("systemctl", "restart", harness.AGENT)  # which forgets that the service flaps
        harness.wait_moored(web)


def test_a_new_address_is_followed(fleet: Fleet, client: Machine, web: Machine) -> None:
    """As after DHCP, there and back: the old one leaves the client's Envoy within 2 s, the new
    one serves.
    """
    other = f"{web.address.rpartition('.')[0]}.{200 + len(fleet.name)}"
    _move(fleet, client, web, web.address, other)
    _move(fleet, client, web, other, web.address)


def _move(fleet: Fleet, client: Machine, web: Machine, old: str, new: str) -> None:
    cluster = fleet.cluster
    proxy = harness.process_of(web, harness.PROXY)
    began = time.monotonic()
    web.sh(
        f"ip address del {old}/16 dev eth0; ip address add {new}/16 dev eth0; "
        "ip route replace default via 198.18.0.1"
    )
    client.wait(lambda: f"{old}:{PORT}" not in client.endpoints(cluster), 10, "the old to go")
    took = time.monotonic() - began
    client.wait(lambda: f"{new}:{PORT}" in client.endpoints(cluster), PATIENCE, "the new one")
    web.wait(lambda: harness.process_of(web, harness.PROXY) != proxy, PATIENCE, "its restart")
    harness.wait_moored(web)
    client.wait(lambda: fleet.get(client)[0] == 200, PATIENCE, "an answer")
    web.wait(lambda: inbound(web), 5.0, "its inbound cluster")
    assert took < GONE_S
    entry = fleet.entry(web, SERVICE)
    assert entry is not None
    assert entry["spec"]["address"] == new


def test_a_vm_with_ipv6_only_is_told(fleet: Fleet, client: Machine, web: Machine) -> None:
    """It says that the mesh needs IPv4 and moors again by itself once it has it."""
    web.sh(f"ip -6 address add fd00::7/64 dev eth0; ip address del {web.address}/16 dev eth0")
    words = "it has no IPv4 address, and the mesh reaches VMs by IPv4 only"
    # Not `told`: that nothing else can be reached either may be the headline.
    web.wait(
        lambda: words in harness.step(web, "discovery").get("words", ""), PATIENCE, "the cause"
    )
    assert "ip -4 address" in harness.step(web, "discovery")["remedy"]
    assert words in web.run("vmoor", "status", check=False).stdout
    web.sh(f"ip address add {web.address}/16 dev eth0; ip route replace default via 198.18.0.1")
    harness.wait_moored(web)
    client.wait(lambda: fleet.get(client)[0] == 200, PATIENCE, "an answer")
