"""A booted VM's metrics, as Prometheus would scrape them, beside what is so."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT

DROP_IN = "/etc/vmoor/conf.d/40-metrics.yaml"
WHERE, OTHER = "127.0.0.1:9478", "127.0.0.1:9479"
FLIP = "/run/flip"
SERVICES = {
    "flip": {
        "port": 8301,
        "checks": [{"file": {"path": FLIP}, "period": "200ms", "failure_threshold": 1}],
    }
}
HELD_S = 20.0
Metrics = dict[str, float]


@pytest.fixture(scope="module")
def mesh(fleet: Fleet, client: Machine, web: Machine) -> Machine:
    fleet.announce("flip")
    web.run("touch", FLIP)
    return web


@pytest.fixture(autouse=True)
def _as_it_was(mesh: Machine) -> Iterator[None]:
    yield
    mesh.run("rm", "-f", DROP_IN)
    mesh.run("systemctl", "reload", AGENT)


def serve(vm: Machine, where: str) -> None:
    harness.configure(vm, {"services": SERVICES, "metrics": {"listen": where}}, DROP_IN)
    vm.run("systemctl", "reload", AGENT)


def scrape(vm: Machine, where: str = WHERE) -> Metrics:
    """Each sample, by its line without the value; {} while nobody answers."""
    said = vm.run("curl", "-sS", "--max-time", "5", f"http://{where}/metrics", check=False)
    lines = [line for line in said.stdout.splitlines() if line and line[0] != "#"]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_a_service_that_flaps(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """Healthy and in the mesh; then held out, as `status` says it; then neither any more."""
    assert scrape(mesh) == {}
    serve(mesh, WHERE)
    client.wait(lambda: 8301 in fleet.ports(client, mesh), 20, "flip in the mesh")
    mesh.wait(lambda: scrape(mesh).get('vmoor_service_in_mesh{service="flip"}') == 1, 20, "that")
    found = scrape(mesh)
    assert found['vmoor_state{state="moored"}'] == 1
    assert found['vmoor_service_healthy{service="flip"}'] == 1
    assert found['vmoor_service_held{service="flip"}'] == 0
    assert abs(time.time() - found["vmoor_heartbeat_timestamp_seconds"]) < 10
    assert found['vmoor_token_expiry_timestamp_seconds{token="istio"}'] > time.time()
    assert f'vm="{mesh.name}"' in "".join(found)

    mesh.sh(f"for n in 1 2 3 4 5 6; do rm {FLIP}; sleep 0.6; touch {FLIP}; sleep 0.6; done")
    mesh.wait(lambda: scrape(mesh)['vmoor_service_held{service="flip"}'] == 1, 5, "it to be held")
    found = scrape(mesh)
    assert found['vmoor_service_healthy{service="flip"}'] == 0
    assert found['vmoor_service_healthy{service="web"}'] == 1
    assert 8301 not in fleet.ports(client, mesh)
    words = {s["name"]: s["words"] for s in harness.document(mesh)["services"]}["flip"]
    assert re.search(r"fell \d+ times in 10m", words), words
    mesh.wait(lambda: scrape(mesh)['vmoor_service_held{service="flip"}'] == 0, HELD_S, "the end")
    client.wait(lambda: 8301 in fleet.ports(client, mesh), 5, "flip in the mesh")
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert scrape(mesh)
        took.append(time.monotonic() - began)
    print(f"a scrape takes {1e3 * sorted(took)[10]:.0f} ms, curl and nsenter included")


def test_a_reload_moves_and_ends_it(mesh: Machine) -> None:
    """To another port, and away, without a restart."""
    with harness.unharmed(mesh):
        serve(mesh, WHERE)
        mesh.wait(lambda: scrape(mesh) != {}, 10, "metrics")
        serve(mesh, OTHER)
        mesh.wait(lambda: scrape(mesh, OTHER) != {}, 10, "metrics at the other port")
        assert scrape(mesh) == {}
        mesh.run("rm", DROP_IN)
        mesh.run("systemctl", "reload", AGENT)
        mesh.wait(lambda: scrape(mesh, OTHER) == {}, 10, "their end")
        mesh.wait(lambda: harness.step(mesh, "metrics") == {}, 10, "its step to go")


def test_a_port_in_use_is_told(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """The step says which; all else stays as it is, and it goes on when the port is free."""
    mesh.sh("systemd-run -q --unit=squatter /usr/bin/nc -lk 127.0.0.1 9478")
    mesh.wait(lambda: "9478" in mesh.run("ss", "-ltn").stdout, 10, "the squatter")
    serve(mesh, WHERE)
    with harness.kept(fleet, client, mesh):
        harness.told(mesh, "metrics", "on 127.0.0.1:9478: address already in use", remedy="ss -l")
        assert harness.document(mesh)["state"] == "at-risk"
        mesh.run("systemctl", "stop", "squatter")
        mesh.wait(lambda: scrape(mesh) != {}, 40, "metrics")
        harness.wait_moored(mesh)


def test_without_the_library(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """What is not installed is told with the command, and taken up once it is there."""
    folder = "/usr/lib/python3/dist-packages/prometheus_client"
    mesh.run("mv", folder, "/root/away")
    try:
        mesh.run("systemctl", "restart", AGENT)
        harness.wait_moored(mesh)
        with harness.kept(fleet, client, mesh):
            serve(mesh, WHERE)
            harness.told(mesh, "metrics", "python3-prometheus-client", remedy="apt install")
            assert "needs python3-prometheus-client" in mesh.run("vmoor", "check").stdout
    finally:
        mesh.run("mv", "/root/away", folder)
    mesh.wait(lambda: scrape(mesh) != {}, 40, "metrics")
