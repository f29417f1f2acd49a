"""VMs that die, and everything that only looks like it, under a reaper with its own rights."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from vmoor.model.service import Workload

from tests import reapers
from tests.reapers import Reaper, Sims
from tests.rig.faults import FaultProxy
from tests.rig.machine import Machine
from tests.rig.network import ADDRESS
from tests.rig.process import wait_until
from tests.stage import kill_main
from tests.system import harness
from tests.system.fleet import PORT, Fleet

LEASE_S = 10.0
IN_TIME_S = 11.0  # a lease and a second, from the last sign of life
METRICS = f"{ADDRESS}:9478"
SETTLED_S = 21.0  # two leases: a reaper that has just started removes nothing before


@pytest.fixture(scope="module")
def token(fleet: Fleet) -> Path:
    return reapers.prepare(fleet.rig, fleet.owner.sh)


@pytest.fixture(scope="module")
def _line(fleet: Fleet) -> Iterator[FaultProxy]:
    with fleet.rig.fault_proxy(fleet.rig.kube.url) as line:
        yield line


@pytest.fixture
def line(_line: FaultProxy) -> Iterator[FaultProxy]:
    """The way of the module's reaper to the API server."""
    yield _line
    _line.clear()


@pytest.fixture(scope="module")
def reaper(fleet: Fleet, token: Path, _line: FaultProxy) -> Iterator[Reaper]:
    """One for the module that has been looking for two leases."""
    where = f"--metrics-listen={METRICS}"
    with Reaper(fleet.rig, token, where, server=_line.url) as reaper:
        wait_until(lambda: reapers.leader(fleet.rig), 30, "a leader")
        time.sleep(SETTLED_S)
        yield reaper


@pytest.fixture
def sims(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Callable[..., Sims]]:
    made: list[Sims] = []

    def make(count: int, prefix: str, **more: object) -> Sims:
        workload = Workload(fleet.namespace, fleet.name, fleet.account)
        names = [f"{prefix}{n}" for n in range(count)]
        sims = Sims(fleet.rig, workload, names, **more)  # type: ignore[arg-type]
        made.append(sims)
        return sims.__enter__()

    yield make
    for each in made:
        each.__exit__()


def listed(fleet: Fleet, client: Machine, sims: Sims) -> set[str]:
    """Which of them the client's Envoy would send to."""
    endpoints = client.endpoints(fleet.cluster)
    return {name for name, vm in sims.all.items() if f"{vm.address}:{PORT}" in endpoints}


def wait_listed(fleet: Fleet, client: Machine, sims: Sims) -> None:
    client.wait(lambda: listed(fleet, client, sims) == set(sims.all), 20, "all endpoints")


def test_a_power_cut_is_out_within_its_lease(
    fleet: Fleet, client: Machine, reaper: Reaper, vm: Callable[..., Machine],
    sims: Callable[..., Sims],
) -> None:  # fmt: skip
    """Out of another VM's Envoy in 11 s at most, and no other entry is touched."""
    others = sims(3, "cut")
    dying = vm()
    harness.wait_moored(dying)
    client.wait(lambda: fleet.in_mesh(client, dying), 20, "the endpoint")
    wait_listed(fleet, client, others)
    dying.power_cut()
    began = time.monotonic()
    client.wait(lambda: not fleet.in_mesh(client, dying), 20, "the endpoint to go")
    took = time.monotonic() - began
    print(f"power cut: out after {took:.2f} s")
    assert took <= IN_TIME_S
    assert others.healthy() == listed(fleet, client, others) == set(others.all)
    said = [
        c for c in (fleet.entry(dying) or {})["status"]["conditions"] if c["type"] == "Healthy"
    ]
    assert [(c["status"], c["reason"]) for c in said] == [("False", "LeaseExpired")]


def test_a_paused_vm_is_out_and_comes_back(
    fleet: Fleet, client: Machine, reaper: Reaper, web: Machine, sims: Callable[..., Sims]
) -> None:
    """Stopped for two leases: out, and in again after a beat; the entry is the same object."""
    sims(3, "paused")
    before = fleet.entry(web) or {}
    web.freeze()
    try:
        client.wait(lambda: not fleet.in_mesh(client, web), 20, "the endpoint to go")
        time.sleep(LEASE_S)
    finally:
        web.thaw()
    began = time.monotonic()
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint to come back")
    print(f"\npaused VM: back {time.monotonic() - began:.2f} s after it went on")
    after = fleet.entry(web) or {}
    assert harness.uid(after) == harness.uid(before)
    assert after["spec"] == before["spec"]
    assert _labels(after) == _labels(before)
    client.wait(lambda: harness.moored(web), 20, "it to be moored")


def _labels(entry: Any) -> dict[str, str]:
    """But the one by which the agent makes istiod look again."""
    labels = dict(entry["metadata"]["labels"])
    labels.pop("vmoor.io/nudge", None)
    return labels


def test_an_agent_that_is_killed_or_restarted_is_no_dead_vm(
    fleet: Fleet, client: Machine, reaper: Reaper, web: Machine
) -> None:
    """kill -9, restart and reinstallation, over and over while Vault is away."""
    before = reaper.removed()
    fleet.vault.refuse()
    began = time.monotonic()
    while time.monotonic() < began + 30:
        for hurt in (
            lambda: kill_main(web, harness.AGENT),
            lambda: web.run("systemctl", "restart", harness.AGENT),
            lambda: web.sh(harness.REINSTALL, timeout=60),
        ):
            hurt()
            harness.beats(fleet, web, 1)
            assert fleet.in_mesh(client, web)
    assert reaper.removed() == before


def test_a_deleted_lease_leaves_the_entries(
    fleet: Fleet, client: Machine, reaper: Reaper, web: Machine, sims: Callable[..., Sims]
) -> None:
    """kubectl delete of a living VM's Lease, and of one that never writes it again."""
    some, before = sims(4, "nolease"), reaper.removed()
    uid = harness.uid(fleet.entry(web))
    some.die(["nolease0"])
    for name in (web.name, "nolease0"):
        fleet.rig.kubectl("delete", "lease", f"vmoor-{name}", "-n", fleet.namespace)
    time.sleep(2 * LEASE_S + 2)
    assert some.healthy() == set(some.all)
    assert harness.uid(fleet.entry(web)) == uid
    assert fleet.in_mesh(client, web)
    assert fleet.lease(web) is not None
    assert reaper.removed() == before


def test_a_fifth_of_the_vms_goes_in_time(
    fleet: Fleet, client: Machine, reaper: Reaper, sims: Callable[..., Sims]
) -> None:
    """Of ten VMs two die at once: both are out within the lease, the others stay."""
    some = sims(10, "fifth")
    wait_listed(fleet, client, some)
    dead = {"fifth3", "fifth7"}
    began = some.die(dead)
    client.wait(lambda: listed(fleet, client, some) == set(some.all) - dead, 20, "both to go")
    took = time.monotonic() - began
    print(f"2 of 10: out after {took:.2f} s")
    assert took <= IN_TIME_S
    assert some.healthy() == set(some.all) - dead


def test_a_zone_goes_in_time(
    fleet: Fleet, client: Machine, reaper: Reaper, sims: Callable[..., Sims]
) -> None:
    """One of three zones is more than 30 %, but everything else lives."""
    some = sims(12, "zone", localities=("eu/a", "eu/b", "eu/c"))
    wait_listed(fleet, client, some)
    dead = {f"zone{n}" for n in range(0, 12, 3)}
    began = some.die(dead)
    client.wait(lambda: listed(fleet, client, some) == set(some.all) - dead, 20, "the zone to go")
    took = time.monotonic() - began
    print(f"4 of 12, one zone: out after {took:.2f} s")
    assert took <= IN_TIME_S


def test_most_of_the_vms_are_not_removed(
    fleet: Fleet, client: Machine, reaper: Reaper, sims: Callable[..., Sims]
) -> None:
    """Six of ten: none is removed, the brake is told within a lease; a person ends it."""
    some = sims(10, "most")
    wait_listed(fleet, client, some)
    dead = {f"most{n}" for n in range(6)}
    began = some.die(dead)
    wait_until(lambda: _brakes(fleet), 20, "the brake", period=0.1)
    took = time.monotonic() - began
    print(f"6 of 10: brake told after {took:.2f} s: {_brakes(fleet)}")
    assert took <= LEASE_S
    brake = f'vmoor_fleet_brake{{scope="{fleet.namespace}/web"}} 1.0'
    assert brake in _metrics(fleet)
    time.sleep(2 * LEASE_S)
    assert listed(fleet, client, some) == some.healthy() == set(some.all)
    told = _metrics(fleet)
    assert {brake, 'vmoor_fleet_vms{state="silent"} 6.0', "vmoor_fleet_leader 1.0"} <= set(told)
    some.live(dead)
    wait_until(lambda: not _brakes(fleet), 20, "the end of the brake", period=0.1)
    assert 'vmoor_fleet_brake{scope="the mesh"} 0.0' in _metrics(fleet)
    assert brake not in _metrics(fleet)
    assert listed(fleet, client, some) == some.healthy() == set(some.all)


def _metrics(fleet: Fleet) -> list[str]:
    return fleet.rig.http("GET", f"http://{METRICS}/metrics").text.splitlines()


def _brakes(fleet: Fleet) -> list[dict[str, object]]:
    found = reapers.lease(fleet.rig, "vmoor-fleet")["metadata"]["annotations"]["vmoor.io/brake"]
    return list(json.loads(found))


def test_the_last_endpoint_stays(
    fleet: Fleet, client: Machine, reaper: Reaper, sims: Callable[..., Sims]
) -> None:
    """Two of two fall silent: one goes, the other is kept whatever happens."""
    others, some = sims(8, "rest"), sims(2, "last", services=("alone",))
    some.die(some.all)
    wait_until(lambda: len(some.healthy()) == 1, 20, "one to go", period=0.2)
    time.sleep(LEASE_S)
    assert len(some.healthy()) == 1
    assert others.healthy() == set(others.all)


def test_an_outage_of_the_api_server_removes_nothing(
    fleet: Fleet, client: Machine, reaper: Reaper, line: FaultProxy, web: Machine,
    sims: Callable[..., Sims],
) -> None:  # fmt: skip
    """Away, then hanging, for agents and reaper alike: nothing goes, then or afterwards."""
    some, before = sims(5, "outage", server=fleet.kube.url), reaper.removed()
    wait_listed(fleet, client, some)
    for fault in (FaultProxy.refuse, FaultProxy.hang):
        for proxy in (fleet.kube, line):
            fault(proxy)
        time.sleep(4 * LEASE_S)
        assert fleet.in_mesh(client, web)
        assert listed(fleet, client, some) == set(some.all)
        for proxy in (fleet.kube, line):
            proxy.clear()
        time.sleep(2.5 * LEASE_S)
        assert some.healthy() == listed(fleet, client, some) == set(some.all)
        assert fleet.in_mesh(client, web)
        assert reaper.removed() == before
        harness.wait_moored(web)


def test_slow_and_lost_answers_remove_nothing(
    fleet: Fleet, client: Machine, reaper: Reaper, line: FaultProxy, web: Machine,
    sims: Callable[..., Sims],
) -> None:  # fmt: skip
    """The API server answers 3 s late, to agent and reaper; then the agent's beats go through and
    are never answered: it beats on, and nobody is out, then or afterwards."""
    some, before = sims(3, "slow"), reaper.removed()
    wait_listed(fleet, client, some)
    with harness.kept(fleet, client, web):
        fleet.kube.late(3.0)
        line.late(3.0)
        time.sleep(1.4 * LEASE_S)
        assert fleet.in_mesh(client, web)
        line.clear()
        fleet.kube.clear()
        fleet.kube.swallow("PUT .*/leases/")
        time.sleep(1.6 * LEASE_S)
        assert fleet.in_mesh(client, web)
        fleet.kube.clear()
        harness.wait_moored(web)
    swallowed = [seen for seen in fleet.kube.seen if seen.fate == "swallow"]
    print(f"{len(swallowed)} beats went through without an answer")
    assert swallowed
    assert some.healthy() == listed(fleet, client, some) == set(some.all)
    assert reaper.removed() == before


def test_wrong_clocks_prove_nothing(
    fleet: Fleet, client: Machine, reaper: Reaper, web: Machine, sims: Callable[..., Sims]
) -> None:
    """VMs' clocks are a day off, the reaper's jumps by an hour: none is out, it leads on, and
    those that die are out in time."""
    some, before = sims(4, "clock", off=(86_400.0, -86_400.0)), reaper.removed()
    wait_listed(fleet, client, some)
    leads, log = reapers.leader(fleet.rig), len(reaper.log)
    try:
        for jump in (3_600.0, -3_600.0):
            reaper.jump(jump)
            time.sleep(0.6 * LEASE_S)
            assert reapers.leader(fleet.rig) == leads
            assert some.healthy() == set(some.all)
            assert fleet.in_mesh(client, web)
        assert reaper.removed() == before
        dead = {"clock0", "clock1"}
        began = some.die(dead)
        client.wait(lambda: listed(fleet, client, some) == set(some.all) - dead, 20, "both to go")
        took = time.monotonic() - began
    finally:
        reaper.jump(0)
    print(f"VMs with a clock a day ahead and a day behind: out after {took:.2f} s")
    assert took <= IN_TIME_S
    assert "leads no more" not in reaper.log[log:]


def test_agents_and_people_know_that_a_reaper_watches(
    fleet: Fleet, reaper: Reaper, web: Machine, sims: Callable[..., Sims]
) -> None:
    """In `vmoor status` of a VM, and in `vmoor fleet` with all VMs."""
    sims(3, "known")
    web.wait(lambda: harness.document(web)["heartbeat"]["reaper"] == "watching", 90, "that")
    assert "every 3s, reaper watching" in web.run("vmoor", "status").stdout
    asked = f"vmoor fleet -n {fleet.namespace}"
    # It goes by the clocks: the reaper, whose own has jumped, publishes each 10 s.
    wait_until(lambda: "no reaper" not in fleet.owner.sh(f"{asked} || true"), 15, "that", period=1)
    shown = fleet.owner.sh(asked)
    print(shown)
    assert "a beat every 3s; reaper " in shown
    assert f"{fleet.namespace}/{web.name}" in shown
    told = json.loads(fleet.owner.sh(f"vmoor fleet -n {fleet.namespace} --json"))
    mine = next(v for v in told["vms"] if v["vm"] == web.name)
    assert (mine["state"], mine["services"][0]["health"]) == ("beats", "True")
    assert mine["version"]


def test_a_person_may_confirm_a_mass_death(
    fleet: Fleet, client: Machine, reaper: Reaper, sims: Callable[..., Sims]
) -> None:
    """`vmoor fleet` shows the brake; after `vmoor fleet confirm` the dead go, and only they."""
    some = sims(10, "mass")
    wait_listed(fleet, client, some)
    dead = {f"mass{n}" for n in range(6)}
    some.die(dead)
    time.sleep(LEASE_S + 3)
    shown = fleet.owner.sh("vmoor fleet || true")
    assert f"BRAKE on {fleet.namespace}/web: 6 of" in shown, shown
    fleet.owner.sh(f"vmoor fleet confirm --silent -n {fleet.namespace} --yes")
    began = time.monotonic()
    client.wait(lambda: listed(fleet, client, some) == set(some.all) - dead, 20, "them to go")
    print(f"confirmed: out after {time.monotonic() - began:.2f} s")
    assert some.healthy() == set(some.all) - dead


def test_another_reaper_takes_over(
    fleet: Fleet, token: Path, sims: Callable[..., Sims], reaper: Reaper, line: FaultProxy
) -> None:
    """After kill -9 of the leader within 20 s; it has been looking, so it acts at once."""
    some = sims(5, "over")
    with Reaper(fleet.rig, token) as second:
        time.sleep(SETTLED_S)
        first = reapers.leader(fleet.rig)
        assert reaper.process is not None
        reaper.process.kill()
        began = time.monotonic()
        wait_until(lambda: ", leads" in second.log, 30, "the second to lead", period=0.05)
        took = time.monotonic() - began
        print(f"takeover after kill -9: {took:.2f} s")
        assert took <= 20
        assert reapers.leader(fleet.rig) != first
        wait_until(lambda: _brakes(fleet) == [], 30, "it to publish", period=0.2)
        time.sleep(SETTLED_S)
        some.die(["over0"])
        wait_until(lambda: "over0" not in some.healthy(), 20, "it to act", period=0.2)
        _stands_still(fleet, second, reaper)
        _is_cut_off(fleet, reaper, line, second)
        assert some.healthy() == set(some.all) - {"over0"}


def _stands_still(fleet: Fleet, leader: Reaper, other: Reaper) -> None:
    """A leader that is stopped and goes on later sees that it leads no more."""
    assert leader.process is not None
    other.__enter__()
    led, acted = other.log.count(", leads"), leader.removed()
    time.sleep(5)
    leader.process.signal(signal.SIGSTOP)
    wait_until(lambda: other.log.count(", leads") > led, 30, "the other to lead", period=0.05)
    identity = reapers.leader(fleet.rig)
    time.sleep(12)
    leader.process.signal(signal.SIGCONT)
    time.sleep(10)
    assert reapers.leader(fleet.rig) == identity
    assert "leads no more" in leader.log
    assert leader.removed() == acted


def _is_cut_off(fleet: Fleet, leader: Reaper, line: FaultProxy, other: Reaper) -> None:
    """A leader that reaches the API server no more, while all VMs do."""
    led, acted = other.log.count(", leads"), leader.removed() + other.removed()
    line.refuse()
    began = time.monotonic()
    wait_until(lambda: other.log.count(", leads") > led, 30, "the other to lead", period=0.05)
    took = time.monotonic() - began
    print(f"takeover from a leader that is cut off: {took:.2f} s")
    assert took <= 20
    identity = reapers.leader(fleet.rig)
    line.clear()
    time.sleep(10)
    assert reapers.leader(fleet.rig) == identity
    assert leader.removed() + other.removed() == acted


def test_the_packaged_unit_watches(
    fleet: Fleet, client: Machine, token: Path, reaper: Reaper, web: Machine,
    sims: Callable[..., Sims],
) -> None:  # fmt: skip
    """vmoor-reaper.service on a VM: takes over from one that is stopped, acts, hands back; with
    a smaller budget the agents beat more seldom."""
    some = sims(4, "unit")
    web.write("/etc/vmoor-reaper/token", token.read_text(), 0o640, "root:vmoor-reaper")
    web.write("/etc/vmoor-reaper/ca.pem", fleet.rig.kube.ca)
    web.write(
        "/etc/default/vmoor-reaper",
        f'VMOOR_REAPER_OPTIONS="--server={fleet.rig.kube.url} --ca=/etc/vmoor-reaper/ca.pem '
        '--token-file=/etc/vmoor-reaper/token --budget=1 --metrics-listen=127.0.0.1:9478"\n',
    )
    assert web.unit_property("vmoor-reaper.service", "ActiveState") == "inactive"
    web.run("systemctl", "start", "vmoor-reaper")
    time.sleep(SETTLED_S)
    reaper.__exit__()
    web.wait(lambda: reapers.leader(fleet.rig).startswith(web.name), 10, "it to lead")
    some.die(["unit0"])
    web.wait(lambda: "unit0" not in some.healthy(), 20, "it to act", period=0.2)
    status = web.unit_property("vmoor-reaper.service", "StatusText")
    assert status.startswith("Watching "), status
    assert "vmoor_fleet_removals_total 1.0" in web.run("curl", "-sS", "127.0.0.1:9478").stdout
    web.wait(lambda: _beat_of(fleet, web) > LEASE_S, 90, "a longer lease", period=0.5)
    print(f"budget of 1 beat a second: a lease of {_beat_of(fleet, web)} s")
    assert fleet.in_mesh(client, web)
    reaper.__enter__()
    web.run("systemctl", "stop", "vmoor-reaper")
    time.sleep(SETTLED_S)
    assert some.healthy() == set(some.all) - {"unit0"}


def _beat_of(fleet: Fleet, vm: Machine) -> int:
    return int((fleet.lease(vm) or {})["spec"]["leaseDurationSeconds"])
