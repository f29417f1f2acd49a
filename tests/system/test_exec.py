"""A check that is a command of the operator's: what it decides, and what it may not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import SECRET_ID, SERVICE, Fleet
from tests.system.harness import AGENT

DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"
RUNNER, RUNNER_USER = "vmoor-exec.service", "vmoor-exec"
SCRIPT, RIGHTS = "/usr/local/bin/check-web", "/usr/local/bin/tell-rights"
WELL = "/run/web-well"
# The sleep is a daemon: the shell that started it is gone, and its session is its own.
CHECK = f"""\
#!/bin/sh
(setsid sleep 54321 &) &
test -e {WELL} || {{ echo no {WELL}; exit 3; }}
echo well as $(id -un)
"""
HIDDEN = (
    SECRET_ID,
    "/run/vmoor/credentials.json",
    "/run/vmoor-proxy/istio-token",
    "/var/lib/vmoor/secret-id.json",
)
TELL = f"""\
#!/bin/sh
for file in {" ".join(HIDDEN)}; do cat $file >/dev/null 2>&1 && echo read $file; done
for folder in /etc /usr/local/bin /run /var/lib /etc/vmoor/conf.d $HOME; do
    touch $folder/evil 2>/dev/null && echo wrote $folder
done
id -un
id -Gn
grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
"""
ASK = """\
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect("/run/vmoor-exec.socket")
link.sendall(sys.argv[1].encode() + b"\\n")
sys.stdout.write(link.makefile().readline())
"""
EXPOSURE = 1.5  # of 10, by systemd-analyze


@pytest.fixture(scope="module")
def checked(fleet: Fleet, client: Machine, web: Machine) -> Iterator[Machine]:
    """The module's VM, whose service has exec checks and passes them."""
    for path, script in ((SCRIPT, CHECK), (RIGHTS, TELL)):
        web.write(path, script, 0o755)
    web.write(WELL, "")
    checks = [{"exec": [SCRIPT], "period": "1s"}, {"exec": [RIGHTS], "timeout": "5s"}]
    with harness.kept(fleet, client, web):
        harness.configure(web, {"services": {SERVICE: {"checks": checks}}}, DROP_IN)
        web.run("systemctl", "reload", AGENT)
        web.wait(lambda: f"well as {RUNNER_USER}" in words(web), 30, "the check to pass")
    yield web
    web.sh(f"rm {DROP_IN} {SCRIPT} {RIGHTS} {WELL}; systemctl reload {AGENT}")


def words(vm: Machine) -> str:
    services = harness.document(vm).get("services", ())
    return next((json.dumps(found) for found in services if found["name"] == SERVICE), "")


def ask(vm: Machine, check: int, user: str = "vmoor") -> dict[str, Any]:
    request = json.dumps({"service": SERVICE, "check": check})
    answer: dict[str, Any] = json.loads(
        vm.run("/usr/bin/python3", "-c", ASK, request, user=user).stdout
    )
    return answer


def test_out_and_in(fleet: Fleet, client: Machine, checked: Machine) -> None:
    """The command decides whether the client's Envoy has the service, and says why not."""
    with harness.unharmed(checked):
        checked.run("rm", WELL)
        client.wait(lambda: not fleet.in_mesh(client, checked), 20, "it to go", period=0.1)
        assert f"exit 3: no {WELL}" in words(checked)
        checked.write(WELL, "")
        client.wait(lambda: fleet.in_mesh(client, checked), 20, "it to come", period=0.1)


def test_a_command_has_no_right_of_the_agents(checked: Machine) -> None:
    """Its own user, no group of the agent's or the proxy's, no secret, no place to write to."""
    lines = ask(checked, 1)["output"].splitlines()
    assert lines[:2] == [RUNNER_USER, RUNNER_USER], lines
    status = dict(line.split(":\t", 1) for line in lines[2:])
    assert [int(value, 16) for key, value in status.items() if key.startswith("Cap")] == [0] * 5
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    # Each is there, or that would say nothing.
    checked.run("stat", *HIDDEN)


def test_the_user_alone_is_kept_from_the_credentials(checked: Machine) -> None:
    """Also without the unit's own walls, and from the configuration not."""
    found = checked.run(
        "sh", "-c", f"for file in {' '.join(HIDDEN)}; do cat $file && echo read; done; :",
        user=RUNNER_USER,
    )  # fmt: skip
    assert found.stdout == ""
    checked.run("cat", DROP_IN, user=RUNNER_USER)


def test_only_the_agent_may_ask(checked: Machine) -> None:
    """The socket is the agent's, so nobody else has a command run."""
    assert ask(checked, 0)["code"] == 0
    for user in ("nobody", "istio-proxy"):
        said = checked.run("/usr/bin/python3", "-c", ASK, "{}", user=user, check=False)
        assert "PermissionError" in said.stderr


def test_nothing_is_left_of_a_look(checked: Machine) -> None:
    """Each look starts a daemon in a session of its own; the runner is alone again."""
    assert ask(checked, 0)["code"] == 0

    def alone() -> bool:
        return len(checked.run("pgrep", "-u", RUNNER_USER).stdout.split()) == 1

    checked.wait(alone, 20, "the runner to be alone", period=0.05)


def test_its_connections_are_not_captured(checked: Machine) -> None:
    """Checks are never captured, whoever makes them."""
    gid = checked.run("id", "-g", RUNNER_USER).stdout.strip()
    rules = checked.sh("iptables-save -t nat")
    assert re.search(rf"--gid-owner {gid} -j RETURN", rules), rules


def test_the_socket_starts_the_next_runner(
    fleet: Fleet, client: Machine, checked: Machine
) -> None:
    """After an end, as of an upgrade or of idleness, nobody has to do anything."""
    before = harness.process_of(checked, RUNNER)["MainPID"]
    with harness.kept(fleet, client, checked):
        checked.run("systemctl", "stop", RUNNER)
        checked.wait(
            lambda: harness.process_of(checked, RUNNER)["MainPID"] not in ("0", before),
            20, "the next runner", period=0.05,
        )  # fmt: skip
        assert ask(checked, 0)["code"] == 0


def test_an_upgrade_fails_no_look(fleet: Fleet, client: Machine, checked: Machine) -> None:
    """The socket stays there, and behind it is the new package's runner afterwards."""
    socket = checked.unit_property("vmoor-exec.socket", "InvocationID")
    before = harness.process_of(checked, RUNNER)["MainPID"]
    checked.run("apt-get", "-qq", "install", "--reinstall", "-y", "vmoor", timeout=120)
    assert checked.unit_property("vmoor-exec.socket", "InvocationID") == socket
    checked.wait(
        lambda: harness.process_of(checked, RUNNER)["MainPID"] not in ("0", before),
        20, "the next runner", period=0.05,
    )  # fmt: skip
    assert ask(checked, 0)["code"] == 0
    harness.wait_moored(checked)
    assert fleet.in_mesh(client, checked)


def test_the_unit_is_hardened(checked: Machine) -> None:
    """As far as commands of operators allow, by systemd's own judgement of the loaded unit."""
    said = checked.run("systemd-analyze", "security", "--no-pager", RUNNER).stdout
    found = re.search(rf"exposure level for {RUNNER}: ([0-9.]+)", said)
    assert found, said
    assert float(found.group(1)) <= EXPOSURE, said


def test_no_check_costs_a_line_of_the_journal(checked: Machine) -> None:
    """The looks of a day would be 17280."""
    began = harness.now(checked)
    for _ in range(3):
        ask(checked, 0)
    assert harness.journal_since(checked, began, RUNNER) == ""


def test_it_is_gone_with_the_socket(fleet: Fleet, client: Machine, checked: Machine) -> None:
    """A stopped socket is told with what to do, and the service is out until it is back."""
    checked.run("systemctl", "stop", "vmoor-exec.socket")
    client.wait(lambda: not fleet.in_mesh(client, checked), 20, "it to go", period=0.1)
    assert "systemctl start vmoor-exec.socket" in words(checked)
    checked.run("systemctl", "start", "vmoor-exec.socket")
    client.wait(lambda: fleet.in_mesh(client, checked), 20, "it to come", period=0.1)
