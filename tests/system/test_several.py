"""Three services on one VM: each is HTTP of its own, and what befalls one leaves the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, SERVICE, Fleet

PATIENCE = 30
PORTS: Mapping[str, int] = {SERVICE: PORT, "api": 9090, "admin": 7070}
UNIT = """\
[Service]
ExecStart=/usr/bin/python3 /usr/share/shop/web.py {port}
"""


def _host(fleet: Fleet, service: str) -> str:
    return fleet.host if service == SERVICE else f"{service}.{fleet.name}.mesh"


def _status(fleet: Fleet, client: Machine, service: str, path: str) -> int:
    url = f"http://{_host(fleet, service)}{path}"
    said = client.run(
        "curl", "-s", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", url, check=False
    )
    return int(said.stdout or 0)


@pytest.fixture(scope="module")
def several(fleet: Fleet, client: Machine, web: Machine) -> Machine:
    """The VM with all three in the client's Envoy."""
    more = {}
    for n, name in enumerate(name for name in PORTS if name != SERVICE):
        fleet.owner.sh(
            f"vmoor admin service-entry --namespace {fleet.namespace} --service {name}"
            f" --host {_host(fleet, name)} --port 80:http --vip 240.240.3.{n + 1}"
            " | kubectl apply -f -"
        )
        web.write(f"/etc/systemd/system/{name}.service", UNIT.format(port=PORTS[name]))
        more[name] = {"port": PORTS[name], "unit": f"{name}.service"}
    web.run("systemctl", "daemon-reload")
    web.run("systemctl", "start", *(name for name in PORTS if name != SERVICE))
    harness.configure(web, {"services": more}, "/etc/vmoor/conf.d/20-test.yaml")
    web.run("systemctl", "reload", harness.AGENT)
    for name in PORTS:
        client.wait(lambda name=name: _listed(fleet, client, web, name), PATIENCE, name)
    return web


def _listed(fleet: Fleet, client: Machine, vm: Machine, service: str) -> bool:
    cluster = f"outbound|80||{_host(fleet, service)}"
    return f"{vm.address}:{PORTS[service]}" in client.endpoints(cluster)


@pytest.fixture
def policy(fleet: Fleet, several: Machine) -> Iterator[None]:
    """Only paths below /open may be asked of the workload."""
    body = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "open", "namespace": fleet.namespace},
        "spec": {
            "selector": {"matchLabels": {"app": fleet.name}},
            "rules": [{"to": [{"operation": {"paths": ["/open/*"]}}]}],
        },
    }
    fleet.rig.kubectl("apply", "-f", "-", input=json.dumps(body))
    yield
    fleet.rig.kubectl("delete", "authorizationpolicy", "open", "-n", fleet.namespace)


def test_each_service_is_http_on_its_own_port(
    fleet: Fleet, client: Machine, several: Machine, policy: None
) -> None:
    """A rule about paths holds for each of the three: 200 where it allows, 403 elsewhere.

    Taken in as plain TCP, all would be refused: no path could match.
    """
    for name in PORTS:
        client.wait(
            lambda name=name: _status(fleet, client, name, "/closed") == 403, PATIENCE, "403"
        )
        assert _status(fleet, client, name, "/open/door") == 200, name


def test_a_service_that_falls_and_returns_changes_nothing_for_the_others(
    fleet: Fleet, client: Machine, several: Machine, policy: None
) -> None:
    """Neither its fall nor its return touches the policy on the rest, and it comes back itself."""
    client.wait(lambda: _status(fleet, client, "api", "/closed") == 403, PATIENCE, "403")
    several.run("systemctl", "stop", "api")
    client.wait(lambda: not _listed(fleet, client, several, "api"), PATIENCE, "it to go")
    for name in (SERVICE, "admin"):
        assert _status(fleet, client, name, "/open/door") == 200
        assert _status(fleet, client, name, "/closed") == 403
    several.run("systemctl", "start", "api")
    client.wait(lambda: _listed(fleet, client, several, "api"), PATIENCE, "it to return")
    client.wait(lambda: _status(fleet, client, "api", "/open/door") == 200, 2.0, "200")
    for name in PORTS:
        assert _status(fleet, client, name, "/open/door") == 200
        assert _status(fleet, client, name, "/closed") == 403


def test_a_service_on_loopback_only_is_told(fleet: Fleet, several: Machine) -> None:
    """The mesh would get a 503 from it: it stays out, and the words say what to change."""
    listens = "/usr/bin/python3 -m http.server 9191 --bind 127.0.0.1"
    several.write("/etc/systemd/system/local.service", f"[Service]\nExecStart={listens}\n")
    several.run("systemctl", "daemon-reload")
    several.run("systemctl", "start", "local")
    local = {"services": {"local": {"port": 9191, "checks": [{"tcp": True}]}}}
    harness.configure(several, local, "/etc/vmoor/conf.d/30-local.yaml")
    several.run("systemctl", "reload", harness.AGENT)
    several.wait(
        lambda: "listens on loopback only (9191)" in _words(several, "local"), PATIENCE, "words"
    )
    assert not harness.healthy(fleet.entry(several, "local"))


def _words(vm: Machine, service: str) -> str:
    services = harness.document(vm).get("services", ())
    return next((s["words"] for s in services if s["name"] == service), "")
