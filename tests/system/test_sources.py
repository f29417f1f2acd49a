"""Services that the configuration does not name: of units, listening ports, a file, a command."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT

DROP_IN = "/etc/vmoor/conf.d/30-sources.yaml"
FILE = "/run/services.json"
COMMAND, PRINTED, BROKEN = "/usr/local/bin/list-services", "/run/printed.json", "/run/broken"
SCRIPT = f"""\
#!/bin/sh
test -e {BROKEN} && {{ echo no database of $(id -un) >&2; exit 3; }}
cat {PRINTED}
"""
NONE = '{"services": {}}'
UNIT = "/etc/systemd/system/marked\\x2dapp.service"
NAME = "marked\\x2dapp.service"
PORTS = {"unit-app": 8101, "socket-app": 8102, "file-app": 8103, "exec-app": 8105}
OTHER_PORT = 8104
SERVER = "/usr/bin/python3 /usr/share/shop/web.py"
TIMEOUT = 20.0  # seconds


@pytest.fixture(scope="module")
def mesh(fleet: Fleet, web: Machine) -> Iterator[Machine]:
    """The VM with all four sources, and a ServiceEntry for each service."""
    for number, name in enumerate(PORTS, 1):
        fleet.owner.sh(
            f"vmoor admin service-entry --namespace {fleet.namespace} --service {name}"
            f" --host {name}.{fleet.name}.mesh --port 80:http --vip 240.240.3.{number}"
            " | kubectl apply -f -"
        )
    web.write(COMMAND, SCRIPT, 0o755)
    for path in (FILE, PRINTED):
        web.write(path, NONE)
    sources = {
        "systemd": {},
        "sockets": {"allow": {str(PORTS["socket-app"]): "socket-app"}},
        "file": {"path": FILE},
        "exec": {"command": [COMMAND], "period": "5s"},
    }
    harness.configure(web, {"sources": sources}, DROP_IN)
    web.run("systemctl", "reload", AGENT)
    yield web
    web.run("rm", DROP_IN)
    web.run("systemctl", "reload", AGENT)


@pytest.fixture
def _unharmed(mesh: Machine) -> Iterator[None]:
    with harness.unharmed(mesh):
        yield


@pytest.fixture(autouse=True)
def _clean(mesh: Machine) -> Iterator[None]:
    yield
    mesh.sh("systemctl stop 'listener-*'; systemctl reset-failed")
    mesh.run("rm", "-f", BROKEN)
    for path in (FILE, PRINTED):
        mesh.write(path, NONE)
    mesh.wait(lambda: _listed(mesh) == {"web"}, TIMEOUT, "its one service")


def _say(vm: Machine, path: str, name: str, port: int) -> None:
    vm.write(path, json.dumps({"services": {name: {"port": port}}}))


def _listen(vm: Machine, *ports: int) -> None:
    for port in ports:
        vm.run("systemd-run", f"--unit=listener-{port}", *SERVER.split(), str(port))


def _ports(fleet: Fleet, client: Machine, vm: Machine, name: str) -> set[int]:
    """The ports of the VM at which the client's Envoy would reach the service."""
    found = client.endpoints(f"outbound|80||{name}.{fleet.name}.mesh")
    return {
        int(endpoint.rpartition(":")[2])
        for endpoint in found
        if endpoint.startswith(f"{vm.address}:")
    }


def _until(fleet: Fleet, client: Machine, vm: Machine, name: str, *ports: int) -> None:
    client.wait(
        lambda: _ports(fleet, client, vm, name) == set(ports), TIMEOUT, f"{name} at {ports}",
        period=0.2,
    )  # fmt: skip


def _listed(vm: Machine) -> set[str]:
    return {service["name"] for service in harness.document(vm).get("services", ())}


@pytest.mark.usefixtures("_unharmed")
def test_a_marked_unit_is_a_service_while_it_runs(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """Installed and started: in the mesh. Crashed: out of it, and still told. Stopped: gone."""
    port = PORTS["unit-app"]
    text = f"X-Vmoor-Service=unit-app port={port} http=/healthz weight=5 label.tier=front"
    mesh.write(UNIT, f"[Service]\nExecStart={SERVER} {port}\n{text}\n")
    mesh.run("systemctl", "daemon-reload")
    assert "unit-app" not in _listed(mesh)
    mesh.run("systemctl", "start", NAME)
    _until(fleet, client, mesh, "unit-app", port)
    entry = fleet.entry(mesh, "unit-app")
    assert entry is not None
    assert entry["spec"]["weight"] == 5
    assert entry["metadata"]["labels"]["tier"] == "front"
    mesh.run("systemctl", "kill", "-s", "KILL", NAME)
    _until(fleet, client, mesh, "unit-app")
    mesh.wait(lambda: "unit-app" in _listed(mesh), TIMEOUT, "the service")
    mesh.run("systemctl", "restart", NAME)
    _until(fleet, client, mesh, "unit-app", port)
    mesh.run("systemctl", "stop", NAME)
    _until(fleet, client, mesh, "unit-app")
    mesh.wait(lambda: fleet.entry(mesh, "unit-app") is None, TIMEOUT, "the entry to go")
    mesh.wait(lambda: _listed(mesh) == {"web"}, TIMEOUT, "its one service")


def test_nothing_leaves_because_nobody_has_looked_yet(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """A restart of the agent keeps every source's services: the same entries, always healthy."""
    mesh.run("systemctl", "start", NAME)
    _listen(mesh, PORTS["socket-app"], PORTS["file-app"], PORTS["exec-app"])
    _say(mesh, FILE, "file-app", PORTS["file-app"])
    _say(mesh, PRINTED, "exec-app", PORTS["exec-app"])
    for name, port in PORTS.items():
        _until(fleet, client, mesh, name, port)
    before = {name: harness.uid(fleet.entry(mesh, name)) for name in PORTS}
    began = time.time()
    mesh.run("systemctl", "restart", AGENT)
    harness.wait_moored(mesh)
    harness.beats(fleet, mesh)
    assert {name: harness.uid(fleet.entry(mesh, name)) for name in PORTS} == before
    for name, port in PORTS.items():
        assert _ports(fleet, client, mesh, name) == {port}
    said = harness.journal_since(mesh, began)
    assert "out of the mesh" not in said
    assert "Not moored" not in said
    mesh.run("systemctl", "stop", NAME)


@pytest.mark.usefixtures("_unharmed")
def test_an_allowed_port_is_a_service_while_something_listens(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """Another port that is opened just the same never is one."""
    port = PORTS["socket-app"]
    _listen(mesh, OTHER_PORT, port)
    _until(fleet, client, mesh, "socket-app", port)
    mesh.wait(lambda: _listed(mesh) == {"web", "socket-app"}, TIMEOUT, "the services")
    mesh.run("systemctl", "stop", f"listener-{port}")
    _until(fleet, client, mesh, "socket-app")
    mesh.wait(lambda: fleet.entry(mesh, "socket-app") is None, TIMEOUT, "the entry to go")


@pytest.mark.usefixtures("_unharmed")
def test_a_file_is_followed_and_its_last_good_content_kept(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """A new port is followed; a file that was written by halves is told."""
    port = PORTS["file-app"]
    _listen(mesh, port, OTHER_PORT)
    _say(mesh, FILE, "file-app", port)
    _until(fleet, client, mesh, "file-app", port)
    _say(mesh, FILE, "file-app", OTHER_PORT)
    _until(fleet, client, mesh, "file-app", OTHER_PORT)
    mesh.write(FILE, '{"services": {"file-app": {"po')
    remedy = f"vmoor check --services-file {FILE}"
    harness.told(mesh, "file", re.escape(FILE) + ":1: not JSON", remedy=remedy)
    assert mesh.run(*remedy.split(), check=False).returncode == 78
    _until(fleet, client, mesh, "file-app", OTHER_PORT)
    mesh.write(FILE, NONE)
    _until(fleet, client, mesh, "file-app")
    mesh.wait(lambda: fleet.entry(mesh, "file-app") is None, TIMEOUT, "the entry to go")


@pytest.mark.usefixtures("_unharmed")
def test_what_a_command_prints_is_followed(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """It appears, moves and goes; a command that fails or prints nonsense changes nothing."""
    port = PORTS["exec-app"]
    _listen(mesh, port, OTHER_PORT)
    _say(mesh, PRINTED, "exec-app", port)
    _until(fleet, client, mesh, "exec-app", port)
    _say(mesh, PRINTED, "exec-app", OTHER_PORT)
    _until(fleet, client, mesh, "exec-app", OTHER_PORT)
    mesh.write(BROKEN, "")
    by_hand = f"runuser -u vmoor-exec -- {COMMAND}"
    words = f"cannot use {COMMAND}: exit 3: no database of vmoor-exec"
    since = harness.told(mesh, "exec", words, remedy=re.escape(by_hand))["since"]
    assert "no database of vmoor-exec" in mesh.sh(f"{by_hand} 2>&1; :", check=False)
    mesh.run("rm", BROKEN)
    mesh.write(PRINTED, '{"services": {"exec-app": {"po')
    found = harness.told(mesh, "exec", f"output of {COMMAND}:1: not JSON")
    assert found["since"] == since, "it has failed since then, whatever it says"
    assert _ports(fleet, client, mesh, "exec-app") == {OTHER_PORT}
    assert _listed(mesh) == {"web", "exec-app"}
    mesh.write(PRINTED, NONE)
    _until(fleet, client, mesh, "exec-app")
    mesh.wait(lambda: fleet.entry(mesh, "exec-app") is None, TIMEOUT, "the entry to go")
    harness.wait_moored(mesh)


def test_a_failing_command_takes_nothing_with_it_over_a_restart_of_the_agent(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """The same entry, always healthy, and the condition again."""
    port = PORTS["exec-app"]
    _listen(mesh, port)
    _say(mesh, PRINTED, "exec-app", port)
    _until(fleet, client, mesh, "exec-app", port)
    mesh.write(BROKEN, "")
    harness.told(mesh, "exec", "exit 3")
    before, began = harness.uid(fleet.entry(mesh, "exec-app")), time.time()
    mesh.run("systemctl", "restart", AGENT)
    harness.told(mesh, "exec", "exit 3")
    harness.beats(fleet, mesh)
    assert _ports(fleet, client, mesh, "exec-app") == {port}
    assert harness.uid(fleet.entry(mesh, "exec-app")) == before
    assert "out of the mesh" not in harness.journal_since(mesh, began)
