"""Services that are changed, renamed or removed while they are used: no request fails for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import pytest
import yaml

from tests.load import Load
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import CONFIGURATION, PORT, SERVICE, Fleet
from tests.system.history import History

DROP_IN = "/etc/vmoor/conf.d/40-changes.yaml"
OTHER_PORT = 8081
TIMEOUT = 20.0
BEFORE = 100  # requests before a change and after it: half a second each

Clusters = Callable[[], str]


@pytest.fixture(scope="module")
def pair(
    fleet: Fleet, client: Machine, web: Machine, module_vm: Callable[..., Machine]
) -> Machine:
    """The VM whose service is changed; another one serves too, and the client tries once only."""
    other = module_vm()
    harness.wait_moored(other)
    client.wait(lambda: fleet.in_mesh(client, other), TIMEOUT, "the other VM's endpoint")
    route = {"destination": {"host": fleet.host}}
    body = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "once", "namespace": fleet.namespace},
        "spec": {"hosts": [fleet.host], "http": [{"retries": {"attempts": 0}, "route": [route]}]},
    }
    fleet.rig.kubectl("apply", "-f", "-", input=json.dumps(body))
    client.wait(lambda: not _retries(client, fleet.host), TIMEOUT, "no retries", period=0.1)
    web.sh(
        f"systemd-run -q --unit=other-port /usr/bin/python3 /usr/share/shop/web.py {OTHER_PORT}"
    )
    return web


@pytest.fixture
def load(fleet: Fleet, client: Machine, pair: Machine) -> Iterator[Load]:
    """200 requests a second, from before the test until after it; none may fail."""
    with harness.unharmed(pair, harness.AGENT, harness.PROXY):
        with Load(client, fleet.vip, fleet.host) as load:
            _more(client, load)
            yield load
            _more(client, load)
        assert not load.failed, (len(load.failed), len(load.answers), load.failed[:5])
        print(len(load.answers), "requests,", load.spread())
        assert len(load.spread()) > 1, load.spread()


def _more(client: Machine, load: Load) -> None:
    count = len(load.answers)
    client.wait(lambda: len(load.answers) > count + BEFORE, TIMEOUT, "requests")


def _retries(client: Machine, host: str) -> bool:
    """Whether the client's Envoy would try a request to this host again."""
    dump = json.loads(client.curl_envoy("/config_dump?resource=dynamic_route_configs"))
    hosts = [
        virtual
        for each in dump["configs"]
        for virtual in each["route_config"].get("virtual_hosts", ())
        if host in virtual["domains"]
    ]
    return not hosts or "retry_policy" in json.dumps(hosts)


def _change(vm: Machine, service: Mapping[str, Any]) -> None:
    if service:
        harness.configure(vm, {"services": {SERVICE: service}}, DROP_IN)
    else:
        vm.run("rm", DROP_IN)
    vm.run("systemctl", "reload", harness.AGENT)


def _listed(fleet: Fleet, client: Machine, vm: Machine) -> dict[int, int]:
    """The VM's ports with their weights, as the client's Envoy has them for the service."""
    begins = f"{fleet.cluster}::{vm.address}:"
    lines = [
        line[len(begins) :].split("::")
        for line in client.curl_envoy("/clusters").splitlines()
        if line.startswith(begins)
    ]
    return {int(port): int(value) for port, key, value in lines if key == "weight"}


@pytest.mark.parametrize(
    ("change", "listed"),
    [({"port": OTHER_PORT}, {OTHER_PORT: 1}), ({"weight": 7}, {PORT: 7})],
    ids=["port", "weight"],
)
def test_a_changed_service_fails_no_request(
    fleet: Fleet, client: Machine, pair: Machine, load: Load,
    change: Mapping[str, Any], listed: Mapping[int, int],
) -> None:  # fmt: skip
    """There and back by SIGHUP: it is never out of the mesh, and its entry stays the same."""
    history, entry = History(fleet, pair), harness.uid(fleet.entry(pair))
    for wanted, has in ((change, listed), ({}, {PORT: 1})):
        _change(pair, wanted)
        client.wait(lambda has=has: _listed(fleet, client, pair) == has, TIMEOUT, str(wanted))
        _more(client, load)
    assert history.words == ["True"]
    assert harness.uid(fleet.entry(pair)) == entry


def test_changed_labels_fail_no_request(
    fleet: Fleet, client: Machine, pair: Machine, load: Load
) -> None:
    """As for a port."""

    def tier() -> object:
        entry = fleet.entry(pair)
        return entry and entry["metadata"]["labels"].get("tier")

    history = History(fleet, pair)
    for wanted, has in (({"labels": {"tier": "front"}}, "front"), ({}, None)):
        _change(pair, wanted)
        client.wait(lambda has=has: tier() == has, TIMEOUT, str(wanted), period=0.05)
        _more(client, load)
    assert history.words == ["True"]


def test_a_renamed_service_fails_no_request(
    fleet: Fleet, client: Machine, pair: Machine, load: Load
) -> None:
    """The old name is unhealthy first and deleted later, the new one is there; and back."""
    history, text = History(fleet, pair), pair.read(CONFIGURATION)
    document = yaml.safe_load(text)
    document["services"] = {"renamed": document["services"][SERVICE]}
    harness.configure(pair, document)
    pair.run("systemctl", "reload", harness.AGENT)
    client.wait(lambda: history.words == ["True", "False", "gone"], TIMEOUT, "the old name to go")
    assert not fleet.in_mesh(client, pair)
    pair.wait(lambda: harness.healthy(fleet.entry(pair, "renamed")), TIMEOUT, "the new name")
    harness.configure(pair, text)
    pair.run("systemctl", "reload", harness.AGENT)
    client.wait(lambda: fleet.in_mesh(client, pair), TIMEOUT, "the old name again")
    pair.wait(lambda: fleet.entry(pair, "renamed") is None, TIMEOUT, "the new name to go")
