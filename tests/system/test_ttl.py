"""An application that speaks for itself: what it says, who may say it, and what silence means."""

from __future__ import annotations

import re
import socket
import statistics
from collections.abc import Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, SERVICE, Fleet
from tests.system.harness import AGENT

DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"
GROUP, OTHER = "app", "other"
WEIGHT = 100
RUNS = 15
BAR_S = 0.2
PATIENCE = 20
FOLDER = "/run/vmoor-ttl"
ASK = """\
import socket
link = socket.socket(socket.AF_UNIX)
link.connect("/run/vmoor-ttl.socket")
print(link.makefile().read())
"""


@pytest.fixture(scope="module")
def app(web: Machine) -> Iterator[Machine]:
    """The module's VM, with two users; its service speaks for itself in every test."""
    web.sh(f"useradd {GROUP}; useradd {OTHER}")
    yield web
    web.sh(f"rm {DROP_IN}; systemctl reload {AGENT}")


@pytest.fixture
def speaking(fleet: Fleet, client: Machine, app: Machine) -> Machine:
    """It is in the mesh, and may be silent for a minute."""
    app.run("systemctl", "restart", AGENT)  # holds out nobody for having fallen before
    configure(app)
    harness.wait_moored(app)
    app.wait(lambda: push(app, "pass").returncode == 0, PATIENCE, "a push", period=0.1)
    listed(fleet, client, app)
    return app


def configure(vm: Machine, ttl: str = "60s", group: str = GROUP, service: str = SERVICE) -> None:
    """As a reload of the running agent."""
    checks = [{"ttl": ttl, "group": group}]
    given: dict[str, Any] = {"checks": checks, "weight": WEIGHT}
    services = {service: given if service == SERVICE else {**given, "port": 9191}}
    harness.configure(vm, {"services": services}, DROP_IN)
    vm.run("systemctl", "reload", AGENT)


def push(vm: Machine, *words: str, user: str = GROUP) -> CompletedProcess[str]:
    return vm.run("vmoor", "ttl", words[0], SERVICE, *words[1:], user=user, check=False)


def say(vm: Machine, message: str) -> None:
    """Without the time that a command's start would take: the test itself is the application."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(message.encode(), f"/proc/{vm.pid1}/root{FOLDER}/{SERVICE}/socket")


def listed(fleet: Fleet, client: Machine, vm: Machine) -> float:
    return client.wait(lambda: fleet.in_mesh(client, vm), PATIENCE, "it to come")


def gone(fleet: Fleet, client: Machine, vm: Machine) -> float:
    return client.wait(lambda: not fleet.in_mesh(client, vm), PATIENCE, "it to go")


def weight(fleet: Fleet, client: Machine, vm: Machine) -> int:
    """In the client's Envoy."""
    pattern = rf"{re.escape(fleet.cluster)}::{vm.address}:{PORT}::weight::(\d+)"
    found = re.search(pattern, client.curl_envoy("/clusters"))
    return int(found.group(1)) if found else 0


def words(vm: Machine) -> str:
    services = harness.document(vm).get("services", ())
    return next((str(found["words"]) for found in services if found["name"] == SERVICE), "")


def test_fail_is_out_at_once(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """Of another VM's Envoy, each time; pass brings it back, and the words say why it went."""
    took = []
    for run in range(RUNS):
        if run:
            speaking.run("systemctl", "restart", AGENT)
            harness.wait_moored(speaking)
            speaking.wait(lambda: push(speaking, "pass").returncode == 0, PATIENCE, "a push")
            listed(fleet, client, speaking)
        say(speaking, "fail no space left")
        took.append(gone(fleet, client, speaking))
        say(speaking, "pass")
        listed(fleet, client, speaking)
    told = f"median {statistics.median(took):.3f} s, worst {max(took):.3f} s of {len(took)}"
    print(f"ttl fail: out of another VM's Envoy: {told}")
    assert max(took) <= BAR_S, took


def test_the_command_decides_and_says_why(
    fleet: Fleet, client: Machine, speaking: Machine
) -> None:
    """As the application's own user."""
    with harness.unharmed(speaking):
        assert push(speaking, "fail", "no", "--space", "left").returncode == 0
        gone(fleet, client, speaking)
        speaking.wait(lambda: words(speaking) == "no --space left", PATIENCE, "the words")
        assert push(speaking, "pass").returncode == 0
        listed(fleet, client, speaking)


def test_warn_stays_in_with_less_weight(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """A quarter, in the client's Envoy; not a request is lost to it."""
    assert weight(fleet, client, speaking) == WEIGHT
    push(speaking, "warn", "disk is at 91%")
    client.wait(lambda: weight(fleet, client, speaking) == WEIGHT / 4, PATIENCE, "less weight")
    assert words(speaking) == "degraded: disk is at 91%"
    assert fleet.get(client)[0] == 200
    push(speaking, "pass")
    client.wait(lambda: weight(fleet, client, speaking) == WEIGHT, PATIENCE, "its weight")


def test_silence_is_out_after_the_ttl(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """Not before, and the first word brings it back; a reload that changes the ttl keeps it."""
    with harness.kept(fleet, client, speaking):
        push(speaking, "pass")
        configure(speaking, ttl="4s")
        for _ in range(8):  # for longer than the ttl
            say(speaking, "pass")
            speaking.run("sleep", "0.7")
    say(speaking, "pass")
    took = gone(fleet, client, speaking)
    print(f"silence of 4 s: out after {took:.3f} s")
    assert 4.0 <= took <= 4.0 + BAR_S
    speaking.wait(lambda: words(speaking) == "nothing heard for 4s", PATIENCE, "the words")
    say(speaking, "pass")
    listed(fleet, client, speaking)


def test_only_its_group_may_push(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """Another user is told which group it takes, and nobody gets past the file's permissions."""
    with harness.kept(fleet, client, speaking):
        refused = push(speaking, "fail", user=OTHER)
        assert refused.returncode == 1
        assert f"only root may, and members of group {GROUP}" in refused.stderr
        code = f"import socket as s; s.socket(1, 2).sendto(b'fail', '{FOLDER}/web/socket')"
        plain = speaking.run("/usr/bin/python3", "-c", code, user=OTHER, check=False)
        assert "PermissionError" in plain.stderr
    modes = speaking.run("stat", "-c", "%U:%G %a", f"{FOLDER}/web", f"{FOLDER}/web/socket", FOLDER)
    assert modes.stdout.split("\n")[:3] == [
        f"vmoor:{GROUP} 2750",
        f"vmoor:{GROUP} 660",
        "root:root 2755",
    ]
    unknown = speaking.run("vmoor", "ttl", "pass", "nothing-such", check=False)
    assert unknown.returncode == 1
    assert "those with one: web" in unknown.stderr
    assert speaking.run("vmoor", "ttl", "passed", SERVICE, check=False).returncode == 2


def test_a_restart_of_the_agent_changes_nothing(
    fleet: Fleet, client: Machine, speaking: Machine
) -> None:
    """It stays in without a word for one ttl, the same entry; after that silence counts."""
    configure(speaking, ttl="8s")
    say(speaking, "pass")
    entry = harness.uid(fleet.entry(speaking))
    speaking.run("systemctl", "restart", AGENT)
    harness.wait_moored(speaking)
    harness.beats(fleet, speaking)
    assert fleet.in_mesh(client, speaking)
    assert harness.uid(fleet.entry(speaking)) == entry
    assert words(speaking) == "nothing heard yet"
    gone(fleet, client, speaking)
    assert push(speaking, "pass").returncode == 0
    listed(fleet, client, speaking)


def test_a_reload_gives_the_socket_to_another_group(
    fleet: Fleet, client: Machine, speaking: Machine
) -> None:
    """And takes a service's folder away with its check."""
    with harness.kept(fleet, client, speaking):
        configure(speaking, group=OTHER)
        speaking.wait(
            lambda: push(speaking, "pass", user=OTHER).returncode == 0, PATIENCE, "the group"
        )
        assert push(speaking, "pass", user=GROUP).returncode == 1
        configure(speaking, service="batch")
        speaking.wait(
            lambda: speaking.run("ls", FOLDER).stdout == "batch\n", PATIENCE, "the other folder"
        )
    speaking.run("rm", DROP_IN)
    speaking.run("systemctl", "reload", AGENT)
    speaking.wait(lambda: speaking.run("ls", FOLDER).stdout == "", PATIENCE, "no folder")


def test_nobody_else_asks_root_for_folders(speaking: Machine) -> None:
    """The agent may ask as often as it likes; it is answered, and gets what root configured."""
    for user in (GROUP, "nobody", "istio-proxy"):
        said = speaking.run("/usr/bin/python3", "-c", ASK, user=user, check=False)
        assert "PermissionError" in said.stderr
    assert speaking.run("/usr/bin/python3", "-c", ASK, user="vmoor").stdout == "{}\n\n"
    refused = speaking.run("ln", "-s", "/etc/shadow", f"{FOLDER}/x", user="vmoor", check=False)
    assert refused.returncode == 1


def test_a_missing_group_is_told(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """Root may push all the same, and the group counts when it is there."""
    configure(speaking, group="late", ttl="3s")
    gone(fleet, client, speaking)
    assert "there is no group late" in words(speaking)
    assert push(speaking, "pass", user="root").returncode == 0
    listed(fleet, client, speaking)
    configure(speaking, group="late")
    speaking.sh(f"groupadd late; usermod -aG late {OTHER}")
    speaking.wait(
        lambda: push(speaking, "pass", user=OTHER).returncode == 0, 3 * PATIENCE, "the group",
        period=0.5,
    )  # fmt: skip


def test_after_a_boot(fleet: Fleet, client: Machine, speaking: Machine) -> None:
    """Nothing of /run is left: the folders are made again, and it is in with its first word."""
    speaking.reboot()
    harness.wait_moored(speaking)
    assert not fleet.in_mesh(client, speaking)
    assert words(speaking) == "nothing heard yet"
    speaking.wait(lambda: push(speaking, "pass").returncode == 0, PATIENCE, "a push", period=0.1)
    listed(fleet, client, speaking)
