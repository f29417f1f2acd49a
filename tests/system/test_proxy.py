"""Bad days of the proxy: the VM is never cut off, and a running proxy is never bounced."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Callable

import pytest

from tests import stage
from tests.rig import inside
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, Fleet
from tests.system.harness import AGENT, PROXY
from tests.system.history import History, condition

PILOT_AGENT = "/usr/local/bin/pilot-agent"
TO_ISTIOD = "OUTPUT -p tcp --dport 15012 -j REJECT --reject-with tcp-reset"
DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"


@pytest.fixture(scope="module")
def cold(module_vm: Callable[..., Machine]) -> Machine:
    """A VM that waits for a SecretID, for tests that begin by harness.cold_start."""
    return module_vm(secret_id="none")


@contextlib.contextmanager
def no_istiod(vm: Machine) -> Iterator[None]:
    """A firewall refuses the VM's way to istiod, and resets what is open."""
    vm.sh(f"iptables -I {TO_ISTIOD}")
    try:
        yield
    finally:
        vm.sh(f"iptables -D {TO_ISTIOD}")


@contextlib.contextmanager
def no_pilot_agent(vm: Machine) -> Iterator[None]:
    vm.sh(f"mv {PILOT_AGENT} {PILOT_AGENT}.away")
    try:
        yield
    finally:
        vm.sh(f"[ ! -e {PILOT_AGENT}.away ] || mv {PILOT_AGENT}.away {PILOT_AGENT}")


def captured(vm: Machine) -> bool:
    return "ISTIO_" in vm.sh("iptables-nft-save; iptables-legacy-save 2>/dev/null || :")


def back_in_mesh(fleet: Fleet, client: Machine, vm: Machine) -> None:
    harness.wait_moored(vm)
    client.wait(lambda: fleet.in_mesh(client, vm), 20, "the endpoint")


def greeting(fleet: Fleet, vm: Machine) -> bytes:
    """What the VM's port 22 says to somebody outside the mesh."""

    def ask() -> bytes:
        with socket.create_connection((vm.address, 22), 5) as link:
            return link.recv(4)

    return inside.call(fleet.rig.network.netns_path, ask)


def test_an_istiod_that_is_away_at_the_start_is_waited_for(fleet: Fleet, cold: Machine) -> None:
    """The proxy's step says what is missing; nothing is captured meanwhile; then it moors."""
    with no_istiod(cold):
        harness.cold_start(cold, fleet.config(), fleet.secret_id())
        remedy = f"reach istiod at {fleet.rig.istiod.discovery}"
        harness.told(cold, "proxy", "cannot get the proxy ready", remedy=remedy)
        assert not captured(cold)
        before = harness.process_of(cold)
    harness.wait_moored(cold)
    assert harness.process_of(cold) == before


def test_a_missing_pilot_agent_is_named(fleet: Fleet, cold: Machine) -> None:
    """The path and the package are told; it moors once the file is there."""
    with no_pilot_agent(cold):
        harness.cold_start(cold, fleet.config(), fleet.secret_id())
        harness.told(cold, "proxy", f"{PILOT_AGENT} is not there", remedy="istio-sidecar")
        before = harness.process_of(cold)
    harness.wait_moored(cold)
    assert harness.process_of(cold) == before


def test_an_istiod_that_goes_away_changes_nothing(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """A moored VM serves on without istiod, and its proxy is not restarted."""
    with harness.kept(fleet, client, web):
        with no_istiod(web):
            harness.beats(fleet, web, 2)
            assert harness.moored(web)
            assert fleet.get(client)[0] == 200
        harness.beats(fleet, web, 1)


def test_a_running_istio_service_is_told(fleet: Fleet, client: Machine, web: Machine) -> None:
    """Both would capture the same traffic: told, and the command that was told ends it."""
    with harness.unharmed(web, AGENT, PROXY):
        web.sh("systemctl unmask istio; systemctl start istio")
        found = harness.told(web, "proxy", "cannot run beside istio.service", remedy="mask istio")
        web.sh(found["remedy"])
        harness.wait_moored(web)
    back_in_mesh(fleet, client, web)


def test_a_dead_envoy_unmeshes_the_vm_and_does_not_cut_it_off(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """While the proxy is down nothing is captured: the VM's own requests, its port 22 and its
    service are reachable, and the mesh sends it nothing."""
    history = History(fleet, web)
    with harness.unharmed(web):
        with no_pilot_agent(web):
            web.sh("kill -9 $(pidof envoy)")
            client.wait(lambda: not fleet.in_mesh(client, web), 20, "the endpoint to go")
            web.wait(lambda: not captured(web), 20, "the rules to go", period=0.1)
            web.run("curl", "-fsS", "--max-time", "5", "http://198.18.0.1:8080/ready")
            assert greeting(fleet, web) == b"SSH-"
            said = fleet.rig.run("curl", "-sS", "--max-time", "5", f"http://{web.address}:{PORT}/")
            assert said.strip() == web.name
            assert condition(fleet.entry(web))["reason"] == "ProxyNotReady"
            harness.told(web, "proxy", "pilot-agent")
        back_in_mesh(fleet, client, web)
        assert captured(web)
        assert history.words == ["True", "False", "True"]


def test_a_killed_proxy_comes_back(fleet: Fleet, client: Machine, web: Machine) -> None:
    """kill -9 of the unit's main process: out, then in again, by systemd and the agent alone."""
    history = History(fleet, web)
    with harness.unharmed(web):
        before = harness.process_of(web, PROXY)
        stage.kill_main(web, PROXY)
        web.wait(lambda: history.words == ["True", "False", "True"], 60, "out and in")
        back_in_mesh(fleet, client, web)
        assert harness.process_of(web, PROXY)["InvocationID"] != before["InvocationID"]


def test_a_proxy_that_restarted_unseen_begins_unhealthy(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Agent and proxy are killed at once: the agent's first word on the new proxy is no."""
    history = History(fleet, web)
    web.sh("systemctl kill -s KILL vmoor vmoor-proxy")
    web.wait(lambda: history.words == ["True", "False", "True"], 60, "out and in")
    back_in_mesh(fleet, client, web)


def test_proxy_restart_restarts_only_the_proxy(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """`vmoor proxy restart` returns when the new one is ready; the entry stays the same."""
    entry, before = harness.uid(fleet.entry(web)), harness.process_of(web, PROXY)
    history = History(fleet, web)
    with harness.unharmed(web):
        web.run("vmoor", "proxy", "restart")
        after = harness.process_of(web, PROXY)
        assert after["ActiveState"] == "active"
        assert after["InvocationID"] != before["InvocationID"]
        web.wait(lambda: history.words == ["True", "False", "True"], 30, "out and in")
    back_in_mesh(fleet, client, web)
    assert harness.uid(fleet.entry(web)) == entry


def test_new_files_wait_for_a_restart(fleet: Fleet, client: Machine, web: Machine) -> None:
    """Neither SIGHUP nor facts that changed in Vault bounce the proxy: restart pending, until
    `vmoor proxy restart`."""
    with harness.kept(fleet, client, web):
        harness.configure(web, {"proxy": {"config": {"statNameLength": 200}}}, DROP_IN)
        web.run("systemctl", "reload", "vmoor")
        web.wait(lambda: pending(web), 20, "restart pending")
        web.run("rm", DROP_IN)
        web.run("systemctl", "reload", "vmoor")
        web.wait(lambda: not pending(web), 20, "nothing pending")
    facts = fleet.facts()
    facts["istio"]["proxy_config"] = {"statNameLength": 200}
    with harness.unharmed(web, PROXY):
        fleet.write_facts(facts)
        web.run("systemctl", "restart", "vmoor")  # or it reads them within 5 minutes
        web.wait(lambda: pending(web), 20, "restart pending")
    shown = web.run("vmoor", "status", check=False).stdout
    assert "restart pending: vmoor proxy restart" in shown
    web.run("vmoor", "proxy", "restart")
    web.wait(lambda: not pending(web), 20, "nothing pending")
    back_in_mesh(fleet, client, web)
    fleet.publish()


def pending(vm: Machine) -> bool:
    return bool(harness.document(vm).get("proxy", {}).get("restart_pending"))
