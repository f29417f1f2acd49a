"""What a compromised agent cannot do: become root, lock people out, write in another's name."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import inside
from tests.rig.machine import Machine
from tests.stage import PROJECT
from tests.system import harness
from tests.system.attacks import CLOSED, EVIL, OWN, PLANTED, PROGRAMS, REFUSAL, REFUSED, RENDERED
from tests.system.fleet import PORT, Fleet
from tests.system.harness import AGENT, PROXY
from tests.system.test_proxy import no_pilot_agent

AGENT_USER, PROXY_USER = "vmoor", "istio-proxy"
RULES = "/run/vmoor-proxy-rules/rules.json"
OUTSIDE = "http://198.18.0.1:8080/ready"  # istiod's plain port, no service of the mesh
SECOND_PORT = 2222
EXPOSURE = 1.3  # of 10, by systemd-analyze
ENTRIES = "/apis/networking.istio.io/v1/namespaces/{}/workloadentries"
POLICY = "'vmoor-own-entries'"


def rules(vm: Machine) -> list[str]:
    """Lines of ours or Istio's, of both back ends and families."""
    saves = "for v in iptables ip6tables; do $v-nft-save; $v-legacy-save || :; done 2>/dev/null"
    return [line for line in vm.sh(saves).splitlines() if "ISTIO_" in line or "VMOOR_" in line]


def captured(vm: Machine) -> bool:
    """In force to the end: the hook writes RULES last."""
    return Path(f"/proc/{vm.pid1}/root{RULES}").exists() and bool(rules(vm))


def moored_again(fleet: Fleet, client: Machine, vm: Machine) -> None:
    harness.wait_moored(vm)
    client.wait(lambda: fleet.in_mesh(client, vm), 20, "the endpoint")
    assert captured(vm)


@pytest.fixture
def evil(fleet: Fleet, client: Machine, web: Machine) -> Iterator[Path]:
    """Programs of the agent's user that tell when they run; the path of their mark, on the host.

    Afterwards the agent starts anew, as after a cure, and the VM must be what it was.
    """
    program = f"#!/bin/sh\\nid -u >> {EVIL}/ran\\necho evil ran\\n"
    script = (
        f"umask 022; mkdir {EVIL}; cd {EVIL}; printf junk > evil.so; printf '{program}' > sh; "
        f"chmod 755 sh; for name in {PROGRAMS}; do cp sh $name; done"
    )
    web.run("sh", "-euc", script, user=AGENT_USER)
    mark = Path(f"/proc/{web.pid1}/root{EVIL}/ran")
    assert "evil ran" in web.run(f"{EVIL}/envoy", user=AGENT_USER).stdout
    assert mark.exists()
    mark.unlink()
    yield mark
    web.sh(f"rm -rf {EVIL}; systemctl restart vmoor")
    web.wait(lambda: captured(web), 30, "the proxy with the agent's own files", period=0.1)
    moored_again(fleet, client, web)


# It does not become root


def test_the_agent_may_start_and_stop_one_unit_and_nothing_else(web: Machine) -> None:
    """As the agent's user every other verb, unit and privilege is refused, and nothing happens."""
    with harness.unharmed(web, AGENT, PROXY, "ssh.service", "web.service"):
        done = {
            command: web.run(*command.split(), user=AGENT_USER, check=False, timeout=20)
            for command in REFUSED
        }
    assert [command for command, said in done.items() if said.returncode == 0] == []
    assert [s.stderr for s in done.values() if not re.search(REFUSAL, s.stderr)] == []
    assert "evil" not in web.run("systemctl", "show-environment").stdout


def test_the_agent_writes_nowhere_but_in_its_own_directories(web: Machine) -> None:
    """Neither configuration, credentials, rules, units, programs nor the proxy's state."""
    attempts = (
        'for d; do test -d "$d" || [ "$d" = /run/systemd/transient ] || echo "$d is missing"; '
        '{ touch "$d/evil" || mkdir "$d/evil.d" || ln -s / "$d/evil.l" || mv "$d" "$d.evil"; } '
        '2>/dev/null && echo "$d"; done; :'
    )
    made = web.run("sh", "-uc", attempts, "sh", *CLOSED, user=AGENT_USER).stdout
    assert made == ""
    # -1002: /tmp and its like, in which nobody can touch what is another's.
    find = (
        "find / \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o "
        "\\( -type f -o -type d \\) -writable ! -perm -1002 -print 2>/dev/null; :"
    )
    found = web.run("sh", "-c", find, user=AGENT_USER).stdout.splitlines()
    assert set(OWN) <= set(found)
    assert [path for path in found if not f"{path}/".startswith(tuple(f"{o}/" for o in OWN))] == []


def test_nothing_that_the_agent_leaves_for_the_proxy_runs(web: Machine, evil: Path) -> None:
    """Whatever proxy.env is or says: refused with a reason, and no program, library or path of
    the agent's user is used by the launcher or by root's hooks; it recovers with the agent."""
    began = harness.now(web)
    prepare = f'env={RENDERED}; cp "$env" {EVIL}/own'
    web.run("sh", "-euc", prepare, user=AGENT_USER)
    for plant, words in PLANTED.items():
        since = harness.now(web)
        script = f"umask 027; env={RENDERED}; rm -f $env $env.2; cp {EVIL}/own $env; {plant}"
        web.run("sh", "-euc", script, user=AGENT_USER)
        web.run("systemctl", "restart", "--no-block", PROXY, user=AGENT_USER)

        def told(since: float = since, words: str = words) -> bool:
            return words in harness.journal_since(web, since, PROXY)

        web.wait(told, 20, f"the launcher to say {words!r}", period=0.1)
        assert not evil.exists(), plant
        assert rules(web) == []
    said = harness.journal_since(web, began, PROXY)
    assert "evil ran" not in said
    assert "cannot be preloaded" not in said  # ld.so's word for a library like ours
    assert "root:" not in said  # of /etc/shadow


def test_the_binary_that_was_checked_is_the_one_that_runs(web: Machine, evil: Path) -> None:
    """mesh.yaml names another Envoy: the proxy starts, with the one of proxy.env."""
    began = harness.now(web)
    script = f'sed -i \'s,"binaryPath": .*,"binaryPath": "{EVIL}/envoy",\' mesh.yaml'
    web.run("sh", "-euc", f"umask 027; cd /run/vmoor-proxy; {script}", user=AGENT_USER)
    assert f"{EVIL}/envoy" in web.read("/run/vmoor-proxy/mesh.yaml")
    web.run("systemctl", "restart", PROXY, user=AGENT_USER)  # returns when it is ready
    assert captured(web)
    assert not evil.exists()
    assert "evil ran" not in harness.journal_since(web, began, PROXY)


def test_the_agent_has_no_say_in_roots_terminal(web: Machine) -> None:
    """Control characters in what it wrote of itself are not shown by `vmoor status`."""
    script = (
        "import json; p = '/run/vmoor/status.json'; d = json.load(open(p)); "
        "d['address'] = '\\x1b]0;evil\\x07'; json.dump(d, open(p, 'w'))"
    )
    web.run("systemctl", "kill", "-s", "STOP", AGENT)
    try:
        web.run("python3", "-c", script, user=AGENT_USER)
        shown = web.run("vmoor", "status").stdout
    finally:
        web.run("systemctl", "kill", "-s", "CONT", AGENT)
    assert "]0;evil" in shown
    assert [c for c in shown if not c.isprintable() and c != "\n"] == []


def test_no_process_has_a_privilege(web: Machine) -> None:
    """Agent, launcher, pilot-agent and Envoy: no capability, no new privileges, no core dump."""
    names = set()
    for user in (AGENT_USER, PROXY_USER):
        for pid in web.run("pgrep", "-u", user).stdout.split():
            status = dict(
                line.split(":\t", 1) for line in web.read(f"/proc/{pid}/status").splitlines()
            )
            names.add(status["Name"])
            for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[kind], 16) == 0, (status["Name"], kind)
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2"), status["Name"]
            limits = web.read(f"/proc/{pid}/limits").splitlines()
            core = next(line for line in limits if line.startswith("Max core file size"))
            assert core.split()[4:6] == ["0", "0"], status["Name"]
    assert {"vmoor", "proxy", "pilot-agent", "envoy"} <= names


def test_the_units_are_hardened(web: Machine) -> None:
    """systemd's own judgement of the loaded unit is 1.3 at most."""
    said = web.run("systemd-analyze", "security", "--no-pager", AGENT).stdout
    found = re.search(r"exposure level for vmoor.service: ([0-9.]+)", said)
    assert found, said
    assert float(found.group(1)) <= EXPOSURE, said
    assert web.unit_property(PROXY, "EnvironmentFiles") == ""


def test_files_belong_to_whom_they_must(web: Machine) -> None:
    """Owner, group and mode of everything that agent, proxy and hook share."""
    expected = {
        "/etc/vmoor": "root:root 755",
        "/etc/vmoor/conf.d": "root:vmoor 750",
        "/etc/vmoor/credentials": "root:vmoor 750",
        "/etc/vmoor/credentials/secret-id": "root:vmoor 640",
        "/run/vmoor": "vmoor:vmoor 755",
        "/run/vmoor/status.json": "vmoor:vmoor 644",
        "/run/vmoor/credentials.json": "vmoor:vmoor 600",
        "/run/vmoor-proxy": "vmoor:istio-proxy 2750",
        "/run/vmoor-proxy/proxy.env": "vmoor:istio-proxy 640",
        "/run/vmoor-proxy/mesh.yaml": "vmoor:istio-proxy 640",
        "/run/vmoor-proxy/root-cert.pem": "vmoor:istio-proxy 640",
        "/run/vmoor-proxy/istio-token": "vmoor:istio-proxy 640",
        "/run/vmoor-proxy-rules": "root:root 755",
        "/run/vmoor-proxy-rules/rules.json": "root:root 644",
        "/var/lib/vmoor": "vmoor:vmoor 700",
        "/var/lib/vmoor/secret-id.json": "vmoor:vmoor 600",
        "/var/lib/vmoor-proxy": "istio-proxy:istio-proxy 700",
    }
    said = web.run("stat", "-c", "%n %U:%G %a", *expected).stdout
    assert dict(line.split(" ", 1) for line in said.splitlines()) == expected
    others = web.sh("find /var/lib/vmoor /var/lib/vmoor-proxy/etc/certs -type f -perm /077")
    assert others == ""


# It locks nobody out


def connected(fleet: Fleet, vm: Machine, port: int) -> socket.socket:
    """A connection from outside the mesh on which sshd has said who it is."""

    def connect() -> socket.socket:
        return socket.create_connection((vm.address, port), 5)

    try:
        link = inside.call(fleet.rig.network.netns_path, connect)
        said = link.recv(4)
    except ConnectionError as e:  # to Machine.wait that would mean: not yet
        pytest.fail(f"port {port}: {e}")
    if said != b"SSH-":
        link.close()
        pytest.fail(f"port {port} says {said!r}")
    return link


def goes_on(link: socket.socket) -> None:
    """Data in both directions: sshd answers our version with its key exchange."""
    link.sendall(b"SSH-2.0-test\r\n")
    said = b""
    while b"curve25519-sha256" not in said:
        piece = link.recv(4096)
        assert piece, said
        said += piece


@pytest.fixture
def second_port(web: Machine) -> Iterator[None]:
    """Added as SECURITY.md says: the rules are made when the proxy starts."""
    file = "/etc/ssh/sshd_config.d/second.conf"
    web.write(file, f"Port 22\nPort {SECOND_PORT}\n")
    web.run("systemctl", "restart", PROXY)
    web.run("systemctl", "restart", "ssh")
    yield
    web.sh(f"rm {file}; systemctl restart ssh")


@pytest.mark.usefixtures("second_port", "evil")
def test_ssh_is_never_captured(fleet: Fleet, client: Machine, web: Machine) -> None:
    """All ports of sshd answer while rules are in force, go out, are out, go in, are in; sessions
    from before and from between go on; whatever the agent's user tells the proxy of ports."""
    ports = (22, SECOND_PORT)
    hostile = (
        f"umask 027; env={RENDERED}; "
        "printf 'ISTIO_META_%s\\n' INCLUDE_INBOUND_PORTS=22,2222 INBOUND_PORTS_EXCLUDE=1 "
        "ISTIO_INBOUND_PORTS=* INTERCEPT=all >> $env; "
        "printf 'interception: {exclude: {inbound_ports: [1]}}\\n' > /run/vmoor-proxy/vmoor.yaml"
    )
    web.run("sh", "-euc", hostile, user=AGENT_USER)
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(connected(fleet, web, port)) for port in ports]
        web.run("systemctl", "restart", "--no-block", PROXY, user=AGENT_USER)
        answering(fleet, web, ports, until=lambda: not rules(web))
        # conntrack, which starts with the rules, has never seen these.
        sessions += [stack.enter_context(connected(fleet, web, port)) for port in ports]
        assert rules(web) == []
        answering(fleet, web, ports, until=lambda: captured(web))
        sessions += [stack.enter_context(connected(fleet, web, port)) for port in ports]
        for session in sessions:
            goes_on(session)
    # Or all this would say nothing.
    assert inside.call(fleet.rig.network.netns_path, lambda: plain(web.address)) == b""
    web.run("rm", "/run/vmoor-proxy/vmoor.yaml")


def answering(fleet: Fleet, vm: Machine, ports: tuple[int, ...], *, until: Any) -> None:
    def done() -> bool:
        for port in ports:
            connected(fleet, vm, port).close()
        return bool(until())

    vm.wait(done, 30, "the rules to change", period=0.05)


def plain(address: str) -> bytes:
    """What a server of the VM says without mTLS, b"" for nothing."""
    with socket.create_connection((address, PORT), 5) as link:
        try:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return link.recv(100)
        except ConnectionError:
            return b""


def test_however_the_proxy_ends_no_rule_is_left(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Stopped, killed with all its processes, killed while its rules go in, with rules of the
    other back end, too: none is left in either, and the VM's own connections work."""
    ends = (
        f"systemctl stop {PROXY}",
        f"systemctl kill -s KILL {PROXY}",
        "iptables-legacy -t nat -N ISTIO_OUTPUT; "
        f"iptables-legacy -t nat -A OUTPUT -p tcp -j ISTIO_OUTPUT; systemctl stop {PROXY}",
    )
    with harness.unharmed(web):
        for end in ends:
            assert captured(web)
            with no_pilot_agent(web):
                web.sh(end)
                unmeshed(web, end)
            web.run("systemctl", "start", PROXY)
        web.run("systemctl", "restart", "--no-block", PROXY)
        web.wait(lambda: not rules(web), 20, "the rules to go", period=0.02)
        web.wait(lambda: rules(web), 20, "the rules to come", period=0.02)
        with no_pilot_agent(web):
            web.run("systemctl", "kill", "-s", "KILL", PROXY)
            unmeshed(web, "killed while the rules go in")
        web.run("systemctl", "start", PROXY)
        moored_again(fleet, client, web)


def unmeshed(vm: Machine, end: str) -> None:
    vm.wait(lambda: not rules(vm), 20, f"no rules after: {end}", period=0.05)
    assert not Path(f"/proc/{vm.pid1}/root{RULES}").exists()
    vm.run("curl", "-fsS", "--max-time", "5", OUTSIDE)


# It writes in nobody else's name


def subject(token: str) -> str:
    body = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return str(found["sub"])


def stolen(fleet: Fleet, vm: Machine) -> str:
    """The API token that a moored VM holds."""
    kept = json.loads(vm.read("/run/vmoor/credentials.json"))
    tokens = [v["value"] for v in kept.values() if isinstance(v, dict) and "value" in v]
    wanted = f"system:serviceaccount:{fleet.namespace}:{fleet.account}-vmoor"
    return str(next(t for t in tokens if t.count(".") == 2 and subject(t) == wanted))


def ask(
    fleet: Fleet, token: str, method: str, path: str, body: Any = None, kind: str = "json"
) -> tuple[int, str]:
    bearer = {"Authorization": f"Bearer {token}", "Content-Type": f"application/{kind}"}
    answer = fleet.rig.http(method, f"{fleet.rig.kube.url}{path}", json=body, headers=bearer)
    return answer.status_code, answer.text


def entry(fleet: Fleet, vm: Machine, account: str, name: str, *, marked: bool) -> dict[str, Any]:
    mark = {
        "app.kubernetes.io/managed-by": "vmoor",
        "vmoor.io/vm": vm.name,
        "vmoor.io/service-account": account,
        "vmoor.io/service": name,
    }
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": f"{name}.{vm.name}", "labels": mark if marked else {}},
        "spec": {"address": vm.address, "serviceAccount": account},
    }


def test_a_stolen_api_token_writes_in_its_own_name_only(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """No entry of another ServiceAccount is made, changed or deleted, nor one without the mark;
    and the token reads no secret, mints no token and grants itself nothing."""
    token, path = stolen(fleet, web), ENTRIES.format(fleet.namespace)
    foreign = entry(fleet, web, "other", "foreign", marked=True)
    admin = fleet.rig.kube.token
    merge = "merge-patch+json"
    address = {"spec": {"address": "198.18.0.99"}}
    own = f"{path}/web.{web.name}"
    with harness.kept(fleet, client, web):
        own_entry = entry(fleet, web, fleet.account, "own", marked=True)
        assert ask(fleet, token, "POST", path, own_entry)[0] == 201  # what is its right
        assert ask(fleet, token, "DELETE", f"{path}/own.{web.name}")[0] == 200
        assert ask(fleet, admin, "POST", path, foreign)[0] == 201
        denied = [
            ask(fleet, token, "POST", path, entry(fleet, web, "other", "mine", marked=True)),
            ask(fleet, token, "POST", path, entry(fleet, web, fleet.account, "m", marked=False)),
            ask(fleet, token, "PATCH", f"{path}/foreign.{web.name}", address, merge),
            ask(fleet, token, "DELETE", f"{path}/foreign.{web.name}"),
            ask(fleet, token, "PATCH", own, {"spec": {"serviceAccount": "other"}}, merge),
            ask(fleet, token, "PATCH", own, {"metadata": {"labels": None}}, merge),
        ]
        assert ask(fleet, admin, "DELETE", f"{path}/foreign.{web.name}")[0] == 200
        assert [code for code, _ in denied] == [422] * len(denied), denied
        assert all(POLICY in text for _, text in denied), denied
        core = f"/api/v1/namespaces/{fleet.namespace}"
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{fleet.namespace}"
        closed = [
            ask(fleet, token, "GET", f"{core}/secrets"),
            ask(fleet, token, "GET", f"{core}/configmaps"),
            ask(fleet, token, "POST", f"{core}/serviceaccounts/{fleet.account}/token", {}),
            ask(fleet, token, "POST", f"{core}/serviceaccounts/{fleet.account}-vmoor/token", {}),
            ask(fleet, token, "POST", f"{core}/pods", {}),
            ask(fleet, token, "POST", f"{rbac}/rolebindings", {}),
            ask(fleet, token, "GET", ENTRIES.format("shop")),
            ask(fleet, token, "PATCH", f"{path}/web.{web.name}/status", {}, merge),
        ]
        assert [code for code, _ in closed[:-1]] == [403] * (len(closed) - 1), closed
        assert closed[-1][0] == 200  # the status of its own entry is its right


def test_the_mesh_account_has_no_right(fleet: Fleet, web: Machine) -> None:
    """It may no more than an account that nobody has heard of, and its token, which the proxy
    holds, is none to the API server."""
    prefix = f"system:serviceaccount:{fleet.namespace}"

    def rights(account: str) -> list[str]:
        said = fleet.rig.kubectl(
            "auth", "can-i", "--list", "-n", fleet.namespace, f"--as={prefix}:{account}",
            "--as-group=system:serviceaccounts", "--as-group=system:authenticated",
            f"--as-group=system:serviceaccounts:{fleet.namespace}",
        )  # fmt: skip
        return sorted(said.splitlines())

    assert rights(fleet.account) == rights("unknown")
    assert rights(f"{fleet.account}-vmoor") != rights("unknown")
    token = web.read("/run/vmoor-proxy/istio-token").strip()
    assert subject(token) == f"{prefix}:{fleet.account}"
    assert ask(fleet, token, "GET", ENTRIES.format(fleet.namespace))[0] == 401


def test_a_denied_name_ends_a_stolen_certificate(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """The policy in SECURITY.md, for the account of the client: refused within seconds."""
    policy = (PROJECT / "SECURITY.md").read_text().split("```yaml\n")[1].split("```")[0]
    assert fleet.get(client) == (200, web.name)
    fleet.rig.kubectl("apply", "-f", "-", input=policy)
    try:
        client.wait(lambda: fleet.get(client)[0] == 403, 20, "the denial", period=0.1)
    finally:
        fleet.rig.kubectl("delete", "-f", "-", input=policy)
    client.wait(lambda: fleet.get(client)[0] == 200, 20, "its end", period=0.1)
