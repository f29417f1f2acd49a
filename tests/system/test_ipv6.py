"""interception.ipv6: what goes around the mesh by IPv6, and what is refused when it is closed.

Both VMs get a global IPv6 address by hand: the mesh knows them by IPv4.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet
from tests.system.harness import AGENT
from tests.system.test_security import rules

DROP_IN = "/etc/vmoor/conf.d/40-ipv6.yaml"
CLIENT, VM = "2001:db8::1", "2001:db8::2"
PORT = 8302  # of an application on ::, on both
SERVER = (
    "import http.server, socket, socketserver;"
    "socketserver.TCPServer.address_family = socket.AF_INET6;"
    f"http.server.HTTPServer(('::', {PORT}), http.server.SimpleHTTPRequestHandler).serve_forever()"
)


@pytest.fixture(scope="module")
def both(client: Machine, web: Machine) -> Iterator[Machine]:
    for vm, address in ((client, CLIENT), (web, VM)):
        vm.sh(f"ip -6 address add {address}/64 dev eth0 nodad")
        vm.sh(f'systemd-run -q --unit=six /usr/bin/python3 -c "{SERVER}"')
        vm.wait(lambda vm=vm: f":{PORT}" in vm.run("ss", "-ltn").stdout, 10, "it to listen")  # type: ignore[misc]
    yield web
    client.sh(f"systemctl stop six; ip -6 address del {CLIENT}/64 dev eth0")


def answers(vm: Machine, address: str, *options: str) -> bool:
    argv = ["curl", "-sS", "-o", "/dev/null", "--max-time", "3", *options]
    done = vm.run(*argv, f"http://[{address}]:{PORT}/", check=False)
    if done.returncode:
        # Refused at once: whoever has another address goes on with that one.
        assert done.returncode == 7, (done.returncode, done.stderr)
    return done.returncode == 0


def ssh(client: Machine) -> bool:
    said = client.sh(f"timeout 3 nc -6 {VM} 22 </dev/null || :")
    return said.startswith("SSH-")


def test_closed(fleet: Fleet, client: Machine, both: Machine) -> None:
    """New TCP connections are refused both ways, SSH and all IPv4 are not; open ones go on; with
    the proxy's end nothing is refused any more."""
    web = both
    assert answers(client, VM)
    assert answers(web, CLIENT)
    client.sh(
        f"rm -f /tmp/long; (sleep 60 | timeout 60 nc -6 {VM} 22 >/tmp/long) >/dev/null 2>&1 &"
    )
    client.wait(lambda: "SSH-" in client.sh("cat /tmp/long"), 10, "a session")

    harness.configure(web, {"interception": {"ipv6": "closed"}}, DROP_IN)
    web.run("systemctl", "reload", AGENT)
    web.wait(lambda: "restart pending" in web.run("vmoor", "status").stdout, 10, "that")
    assert answers(client, VM)
    web.run("vmoor", "proxy", "restart")
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
    assert "redirect + DNS, IPv6 closed" in web.run("vmoor", "status").stdout
    assert not answers(client, VM)
    assert not answers(web, CLIENT)
    assert answers(web, VM)
    assert answers(web, "::1")
    assert ssh(client)
    assert fleet.get(client)[0] == 200
    web.run("setpriv", "--reuid=vmoor", "--regid=vmoor", "--clear-groups", "curl", "-sS", "-o",
            "/dev/null", f"http://[{CLIENT}]:{PORT}/")  # fmt: skip
    assert "ESTAB" in web.sh("ss -tn 'sport = :22'")

    web.sh("kill -9 $(pidof envoy)")
    web.wait(lambda: answers(client, VM), 10, "IPv6 without a proxy", period=0.02)
    harness.wait_moored(web)
    web.wait(lambda: not answers(client, VM), 10, "it to be closed again")
    web.run("systemctl", "stop", AGENT)
    web.wait(lambda: rules(web) == [], 20, "the rules to go")
    assert answers(client, VM)
    assert answers(web, CLIENT)
    web.run("rm", DROP_IN)
    web.run("systemctl", "start", AGENT)
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
    assert answers(client, VM)
    assert not [line for line in rules(web) if "CLOSED" in line]
