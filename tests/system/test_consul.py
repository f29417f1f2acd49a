"""A service that is declared to the VM's Consul agent only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests import stage
from tests.rig import consul
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT, PROXY
from tests.system.history import condition

SERVICE, PORT = "api", 9090
UNIT = f"""\
[Service]
ExecStart=/usr/bin/python3 /usr/share/shop/web.py {PORT}
"""
DECLARED = {
    "name": SERVICE, "port": PORT, "tags": ["vmoor", "vmoor.label.tier=back"],
    "check": {"name": "alive", "tcp": f"127.0.0.1:{PORT}", "interval": "200ms", "timeout": "1s"},
}  # fmt: skip
DROP_IN = "/etc/vmoor/conf.d/30-tag.yaml"
AT_ONCE = 5.0  # seconds; on a machine that does much else. The bench measures

Served = Callable[[], bool]


@pytest.fixture(scope="module")
def vm(fleet: Fleet, module_vm: Callable[..., Machine]) -> Machine:
    """A moored VM that knows of no service but web, and with no agent yet."""
    host = f"{SERVICE}.{fleet.name}.mesh"
    fleet.owner.sh(
        f"vmoor admin service-entry --namespace {fleet.namespace} --service {SERVICE}"
        f" --host {host} --port 80:http --vip 240.240.2.2 | kubectl apply -f -"
    )
    vm = module_vm(drop_in={"sources": {"consul": {}}})
    vm.write("/etc/systemd/system/api.service", UNIT)
    vm.sh("systemctl daemon-reload; systemctl start api")
    return vm


@pytest.fixture(scope="module")
def served(fleet: Fleet, client: Machine, vm: Machine) -> Served:
    """Whether the client's Envoy would send requests to the service now."""
    cluster = f"outbound|80||{SERVICE}.{fleet.name}.mesh"
    return lambda: f"{vm.address}:{PORT}" in client.endpoints(cluster)


@pytest.fixture(scope="module")
def joined(vm: Machine, client: Machine, served: Served) -> Machine:
    """The VM with an agent that declares the service, and which is in the mesh."""
    vm.write("/etc/consul.d/api.json", json.dumps({"service": DECLARED}))
    consul.install(vm)
    client.wait(served, harness.PATIENCE, "the endpoint")
    harness.wait_moored(vm)
    return vm


@pytest.fixture(autouse=True)
def _unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever Consul does, neither the agent nor the proxy is another one afterwards."""
    if "joined" not in request.fixturenames:
        yield
        return
    with harness.unharmed(request.getfixturevalue("joined"), AGENT, PROXY):
        yield


def _said(vm: Machine) -> dict[str, Any]:
    found = {each["name"]: each for each in harness.document(vm).get("services", ())}
    return dict(found.get(SERVICE, {}))


def test_without_an_agent_the_vm_is_moored_and_says_what_is_missing(
    fleet: Fleet, client: Machine, vm: Machine
) -> None:
    """Its own service goes on."""
    client.wait(lambda: fleet.in_mesh(client, vm), harness.PATIENCE, "the other endpoint")
    harness.told(vm, "consul", "cannot reach http://127.0.0.1:8500: connection refused")
    assert harness.document(vm)["state"] == "at-risk"


def test_what_consul_declares_is_in_the_mesh(
    fleet: Fleet, client: Machine, joined: Machine
) -> None:
    """With its labels, beside the configuration's own service; a client's request arrives."""
    said, entry = _said(joined), fleet.entry(joined, SERVICE)
    assert (said["source"], said["ports"], said["health"]) == ("consul", {"http": PORT}, "healthy")
    assert said["words"] == "consul: passing"
    assert entry is not None
    assert entry["metadata"]["labels"]["tier"] == "back"
    assert fleet.in_mesh(client, joined)
    url = f"http://{SERVICE}.{fleet.name}.mesh/"
    assert client.run("curl", "-sS", "--max-time", "5", url).stdout.strip() == joined.name


def test_a_critical_check_takes_it_out_and_back(
    fleet: Fleet, client: Machine, joined: Machine, served: Served
) -> None:
    """Out of another VM's Envoy as soon as Consul knows, with Consul's words as the reason."""
    joined.run("systemctl", "stop", "api")
    assert client.wait(lambda: not served(), 20, "the endpoint to go") <= AT_ONCE
    found = condition(fleet.entry(joined, SERVICE))
    assert (found["status"], found["reason"]) == ("False", "CheckFailed")
    assert "consul: alive is critical: dial tcp 127.0.0.1:9090" in found["message"]
    joined.run("systemctl", "start", "api")
    assert client.wait(served, 20, "the endpoint") <= AT_ONCE


def test_a_killed_agent_takes_nothing_with_it(
    fleet: Fleet, client: Machine, joined: Machine, served: Served
) -> None:
    """The endpoint stays while it is gone and while it comes back; then its word counts again."""
    before = harness.uid(fleet.entry(joined, SERVICE))
    changes = _said(joined)["since"]
    stage.kill_main(joined, "consul.service")
    found = harness.told(joined, "consul", "cannot reach http://127.0.0.1:8500")
    assert found["since"]
    assert served()
    joined.run("systemctl", "start", "consul")
    harness.wait_moored(joined)
    assert served()
    assert harness.uid(fleet.entry(joined, SERVICE)) == before
    assert _said(joined)["since"] == changes  # no flap meanwhile
    joined.run("systemctl", "stop", "api")
    client.wait(lambda: not served(), 20, "the endpoint to go")
    joined.run("systemctl", "start", "api")
    client.wait(served, 20, "the endpoint")


def test_a_reload_of_the_source_counts_at_once(
    client: Machine, joined: Machine, served: Served
) -> None:
    """Not when the query that waits for Consul's next change has ended, a minute later."""
    for tag, there in (("other", False), ("vmoor", True)):
        harness.configure(joined, {"sources": {"consul": {"require_tag": tag}}}, DROP_IN)
        joined.run("systemctl", "reload", AGENT)
        assert client.wait(lambda there=there: served() is there, 20, tag) <= AT_ONCE  # type: ignore[misc]
    joined.run("rm", DROP_IN)
    joined.run("systemctl", "reload", AGENT)
    assert served()


def test_what_is_no_longer_declared_goes(
    fleet: Fleet, client: Machine, joined: Machine, served: Served
) -> None:
    """And the entry with it; the configuration's own service stays."""
    joined.sh("mv /etc/consul.d/api.json /root; consul reload")
    client.wait(lambda: not served(), 20, "the endpoint to go")
    joined.wait(lambda: fleet.entry(joined, SERVICE) is None, 20, "the entry to go", period=0.1)
    assert fleet.in_mesh(client, joined)
    joined.sh("mv /root/api.json /etc/consul.d; consul reload")
    client.wait(served, 20, "the endpoint")
