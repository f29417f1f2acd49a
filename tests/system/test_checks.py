"""Every kind of check, judged by another VM's Envoy; what a flapping service may cost."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import stage
from tests.rig.certs import Authority
from tests.rig.machine import Machine
from tests.system import checked, harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT
from tests.system.history import History, condition

DROP_IN = "/etc/vmoor/conf.d/30-checks.yaml"
SHOP = "/usr/bin/python3 /usr/share/shop/web.py"
CERTIFICATES = checked.CERTIFICATES
PID_FILE, FRESH, SOFT, FLIP = (f"/run/checked/{name}" for name in ("pid", "fresh", "soft", "flip"))
FIRST_PORT = 8201
TIMEOUT = 20.0
AT_ONCE = 1.0  # seconds; printed is what it took
MEMORY_MB = 60.0  # of the agent, also while servers try to drown it
FLIPS = 60  # one each second
SETTLED_S = 12.0  # from then on it is held out, and at most WRITES are made
WRITES = 5
DETECTION_S = 0.7  # the check's period and two writes' way; 0.45 on an idle machine
WELL: Mapping[str, Any] = {"host": "shop.example", "status": 200, "body": "all is ready"}

TLS = {
    "ca": f"{CERTIFICATES}/ca.pem",
    "cert": f"{CERTIFICATES}/client.pem",
    "key": f"{CERTIFICATES}/client.key",
}
HTTP = {
    "path": "/status",
    "headers": {"Host": "shop.example"},
    "status": "200-204",
    "body": "ready",
}
SERVICES: Mapping[str, Mapping[str, Any]] = {
    "tcp": {"port": FIRST_PORT, "checks": [{"tcp": True}]},
    "http": {"port": checked.HTTP, "checks": [{"http": HTTP}]},
    "https": {"port": checked.HTTPS, "checks": [{"http": {"path": "/", "tls": TLS}}]},
    "grpc": {"port": checked.GRPC, "checks": [{"grpc": True}]},
    "process": {"port": 8205, "checks": [{"process": PID_FILE}]},
    "file": {"port": 8206, "checks": [{"file": {"path": FRESH, "max_age": "1h"}}]},
    "soft": {
        "port": 8207, "weight": 100,
        "checks": [{"tcp": True}, {"file": {"path": SOFT}, "critical": False}],
    },
    "flip": {"port": 8208, "checks": [{"file": {"path": FLIP}}]},
    **{
        f"evil-{answer.__name__}": {"port": port, "checks": [{"http": "/"}]}
        for port, answer in checked.HOSTILE.items()
    },
}  # fmt: skip
WELCOME = {name for name in SERVICES if not name.startswith("evil-")} | {"web", "evil-flood"}
PORTS = {"web": 8080, **{name: service["port"] for name, service in SERVICES.items()}}


def _quick(service: Mapping[str, Any]) -> Mapping[str, Any]:
    """Each check believes its first look; files are looked at five times a second."""
    checks = []
    for check in service["checks"]:
        timing = {"period": "200ms" if "file" in check else "1s", "failure_threshold": 1}
        checks.append({**check, **({} if "process" in check else timing)})
    return {**service, "checks": checks}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def mesh(fleet: Fleet, client: Machine, web: Machine, authority: Authority) -> Machine:
    """The VM with a service for each kind of check, all of them in the client's Envoy."""
    fleet.announce(*SERVICES)
    web.write(f"{CERTIFICATES}/ca.pem", authority.pem)
    for name in ("server", "client"):
        _certify(web, authority, name)
    for path in (checked.SERVING, FRESH, SOFT, FLIP):
        web.write(str(path), "")
    web.write(str(checked.ANSWER), json.dumps(WELL))
    web.write("/usr/local/lib/checked.py", Path(checked.__file__).read_text())
    pid = f"sh -c 'echo $$$$ > {PID_FILE}; exec {SHOP} {PORTS['process']}'"
    web.sh(
        "systemd-run -q --unit=checked /usr/bin/python3 /usr/local/lib/checked.py;"
        f"systemd-run -q --unit=forked -p Restart=always -p RestartSec=1s {pid};"
        + "".join(
            f"systemd-run -q --unit={name} {SHOP} {PORTS[name]};"
            for name in ("tcp", "file", "soft", "flip")
        )
    )
    services = {name: _quick(service) for name, service in SERVICES.items()}
    harness.configure(web, {"services": services}, DROP_IN)
    web.run("systemctl", "reload", AGENT)
    client.wait(lambda: _reached(fleet, client, web) == WELCOME, 60, "all services", period=0.1)
    return web


@pytest.fixture(autouse=True)
def _unharmed(mesh: Machine) -> Iterator[None]:
    with harness.unharmed(mesh):
        yield


def _certify(vm: Machine, authority: Authority, name: str) -> None:
    for file in authority.issue(name, ["127.0.0.1"]):
        vm.write(f"{CERTIFICATES}/{file.name}", file.read_text(), 0o640, "root:vmoor")


def _reached(fleet: Fleet, client: Machine, vm: Machine) -> set[str]:
    """The services that the client's Envoy would reach on this VM."""
    ports = fleet.ports(client, vm)
    return {name for name, port in PORTS.items() if port in ports}


def _words(vm: Machine, service: str) -> str:
    services = harness.document(vm).get("services", ())
    return next((found["words"] for found in services if found["name"] == service), "")


def _answer(**change: Any) -> tuple[str, str]:
    return str(checked.ANSWER), json.dumps({**WELL, **change})


@dataclass(frozen=True)
class Fault:
    service: str
    words: str  # a regular expression, for what the agent says of it
    breaks: str = ""  # a shell command on the VM
    mends: str = ""
    answers: tuple[str, str] = ("", "")  # or a file and what is in it meanwhile


FAULTS = {
    "tcp": Fault(
        "tcp", "connection refused", "systemctl stop tcp",
        f"systemd-run -q --unit=tcp {SHOP} {FIRST_PORT}",
    ),
    "http status": Fault("http", "503, want 200-204", answers=_answer(status=503)),
    "http body": Fault("http", "no 'ready' in the answer", answers=_answer(body="starting")),
    "http host": Fault("http", "421, want 200-204", answers=_answer(host="other.example")),
    "grpc": Fault("grpc", "NOT_SERVING", f"rm {checked.SERVING}", f"touch {checked.SERVING}"),
    "file gone": Fault("file", "no such file", f"rm {FRESH}", f"touch {FRESH}"),
    "file old": Fault(
        "file", "ago, want 3600s at most", f"touch -d -2hours {FRESH}", f"touch {FRESH}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_out_and_in(fleet: Fleet, client: Machine, mesh: Machine, name: str) -> None:
    """A check that fails takes its service out, tells why, and touches no other one."""
    fault = FAULTS[name]
    path, content = fault.answers
    try:
        if path:
            mesh.write(path, content)
        else:
            mesh.sh(fault.breaks)
        _out(fleet, client, mesh, fault.service, fault.words)
    finally:
        if path:
            mesh.write(path, json.dumps(WELL))
        else:
            mesh.sh(fault.mends)
        _all_in(fleet, client, mesh)


@pytest.mark.parametrize(
    ("name", "words"),
    [("server", "its certificate is refused"), ("client", "^TLS: ")],
)
def test_https(
    fleet: Fleet, client: Machine, mesh: Machine, authority: Authority, stranger: Authority,
    name: str, words: str,
) -> None:  # fmt: skip
    """The server's certificate must be of the CA, and ours is shown; both are read anew."""
    _certify(mesh, stranger, name)
    try:
        _out(fleet, client, mesh, "https", words)
    finally:
        _certify(mesh, authority, name)
        _all_in(fleet, client, mesh)


def _out(fleet: Fleet, client: Machine, vm: Machine, service: str, words: str) -> None:
    client.wait(
        lambda: _reached(fleet, client, vm) == WELCOME - {service}, TIMEOUT, f"{service} to go"
    )
    said = condition(fleet.entry(vm, service))
    assert said["status"] == "False"
    assert re.search(words, said["message"]), said
    assert re.search(words, _words(vm, service)), _words(vm, service)


def _all_in(fleet: Fleet, client: Machine, vm: Machine) -> None:
    client.wait(lambda: _reached(fleet, client, vm) == WELCOME, TIMEOUT, "all services")


def test_a_killed_process_is_out_at_once(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """By its pid file alone, whoever started it: told by the kernel, not by a look."""
    took = []
    for _ in range(2):
        killed = stage.kill_main(mesh, "forked")
        client.wait(lambda: "process" not in _reached(fleet, client, mesh), TIMEOUT, "it to go")
        took.append(time.monotonic() - killed)
        assert condition(fleet.entry(mesh, "process"))["reason"] == "ProcessDead"
        _all_in(fleet, client, mesh)
    print("kill -9 of a process: out after", [f"{1e3 * each:.0f} ms" for each in took])
    assert max(took) <= AT_ONCE


def test_a_check_that_is_not_critical_lowers_the_weight(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """The client's Envoy keeps the endpoint, with a quarter of its weight."""

    def weight() -> str:
        endpoint = f"|soft.{fleet.name}.mesh::{mesh.address}:{PORTS['soft']}::weight::"
        return client.curl_envoy("/clusters").partition(endpoint)[2].partition("\n")[0]

    client.wait(lambda: weight() == "100", TIMEOUT, "the whole weight")
    history = History(fleet, mesh, "soft")
    mesh.run("rm", SOFT)
    client.wait(lambda: weight() == "25", TIMEOUT, "the lowered weight")
    assert "degraded: " in _words(mesh, "soft")
    mesh.run("touch", SOFT)
    client.wait(lambda: weight() == "100", TIMEOUT, "the whole weight again")
    assert history.words == ["True"]


def test_hostile_servers_harm_only_themselves(
    fleet: Fleet, client: Machine, mesh: Machine
) -> None:
    """Garbage, headers or a body without end, silence, drops: told; the agent does not grow."""
    told = {
        "garbage": "not HTTP: ", "headers": "its headers have no end",
        "flood": "200 in ", "silence": "timed out after 1s", "drip": "timed out after 1s",
    }  # fmt: skip
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert _reached(fleet, client, mesh) == WELCOME
        time.sleep(0.1)
    assert {name: _words(mesh, f"evil-{name}")[: len(said)] for name, said in told.items()} == told
    assert _peak_mb(mesh) <= MEMORY_MB


def _peak_mb(vm: Machine) -> float:
    """The most that the agent's process ever had in memory."""
    status = vm.read(f"/proc/{vm.unit_property(AGENT, 'MainPID')}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found.group(1)) / 1024


def test_a_flapping_service_is_held_out(fleet: Fleet, client: Machine, mesh: Machine) -> None:
    """Flipping each second for a minute it is never in the mesh while it fails, soon not at all
    and then nearly nothing is written; status and Events say why."""
    history = History(fleet, mesh, "flip")
    file = Path(f"/proc/{mesh.pid1}/root{FLIP}")
    began = time.monotonic()
    seen = []
    for second in range(FLIPS):
        bad = second % 2 == 0
        flipped = time.monotonic()
        if bad:
            file.unlink()
        else:
            file.touch()
        while (now := time.monotonic()) < began + second + 1:
            if "flip" in _reached(fleet, client, mesh):
                seen.append(now - began)
                assert not bad or now - flipped <= DETECTION_S, f"in while failing at {seen[-1]}"
            time.sleep(0.05)
    writes = history.writes
    print(f"flapping: last seen in the mesh after {seen[-1]:.1f} s, {len(writes)} writes", writes)
    assert seen[-1] <= SETTLED_S
    assert len([at for at in writes if at > began + SETTLED_S]) <= WRITES
    assert re.search(r"fell \d+ times in 10m", _words(mesh, "flip"))
    said = fleet.rig.kubectl("get", "events", "-n", fleet.namespace, "-o", "json")
    events = [each for each in json.loads(said)["items"]
              if each["involvedObject"]["name"] == f"flip.{mesh.name}"]  # fmt: skip
    assert any("fell" in each["message"] for each in events), events
    _all_in(fleet, client, mesh)
