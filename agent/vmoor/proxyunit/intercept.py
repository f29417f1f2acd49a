"""`intercept apply`: waits until the proxy is ready, then sets the capture rules, as root.

It is started with the proxy and finds out all it needs while Envoy starts. systemd ends it when
the proxy ends first.

A failure leaves no rules behind: the VM is then outside the mesh, but never cut off. It takes
nothing from the agent or the proxy: settings from root-owned /etc/vmoor, or those that it kept
itself if that is broken; its own environment.

sshd's ports are those of the proxy's start. Nothing looks again while the rules are in force:
after a change of sshd's Port: `vmoor proxy restart`, then `systemctl restart ssh`.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vmoor import execunit, proxyunit
from vmoor.proxyunit import capture, kept, local, rules, settings, trusted
from vmoor.proxyunit.withdraw import (
    FAMILIES,
    Failed,
    restore,
    run,
    saved,
    sweep,
    tell,
    there,
    withdraw,
)

HTTP_OK = 200
IPV6_ADDRESSES = "/proc/net/if_inet6"  # not there in a kernel without it
LOOK_S, SLOW_LOOK_S = 0.02, 0.2
PATIENT_S = 10.0  # past it the machine may have changed: sshd's ports are asked for again


def backend() -> str:
    """The host's own choice (Debian's alternatives): rules of both kinds confuse people."""
    if not there("iptables"):
        raise Failed("iptables is not installed")
    return "nft" if "nf_tables" in run(["iptables", "--version"]) else "legacy"


def ssh_ports() -> set[int]:
    """All that is known of them; a source that fails is told, the others count."""
    sources = (
        ("sshd", ["sshd", "-T"], capture.sshd_ports),
        ("systemctl", ["systemctl", "show", "-p", "Listen", "ssh.socket", "sshd.socket"],
         capture.socket_ports),
        ("ss", ["ss", "-tlnpeH"], capture.listening_ports),
    )  # fmt: skip
    ports: set[int] = set()
    with ThreadPoolExecutor(len(sources)) as pool:
        asked = [(pool.submit(run, argv), parse) for name, argv, parse in sources if there(name)]
    for answer, parse in asked:
        try:
            ports |= parse(answer.result())
        except Failed as e:
            tell(f"cannot ask for sshd's ports: {e}")
    return ports


def await_ready() -> float:
    """Until Envoy has its configuration from istiod, however long; the seconds it took."""
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            if local.ask(local.READINESS, "/healthz/ready") == HTTP_OK:
                return waited
        except OSError:
            pass  # does not listen yet; the launcher tells it as the unit's status
        time.sleep(LOOK_S if waited < PATIENT_S else SLOW_LOOK_S)


def apply(invocation_id: str) -> None:
    """Raises Failed, settings.Unusable or trusted.Untrusted."""
    found = kept.load(tell)
    withdraw()
    sweep()
    kind, closed = "", False
    try:
        if found.mode != "none":
            trusted.check(found.pilot_agent)
            kind, ssh = backend(), ssh_ports()
            if await_ready() > PATIENT_S:
                ssh = ssh_ports()
            _set(found, kind, ssh)
            closed = found.ipv6 == "closed" and _close(found, kind, ssh)
        else:
            await_ready()
        publish({
            "invocation_id": invocation_id, "mode": found.mode,
            "dns": found.mode != "none" and found.dns_capture, "backend": kind,
            "ipv6": "closed" if closed else "open",
        })  # fmt: skip
    except Exception:
        sweep()
        raise
    kept.keep(tell, found)


def _set(found: settings.Settings, kind: str, ssh: set[int]) -> None:
    proxy = pwd.getpwnam(proxyunit.USER)
    restore("iptables", kind, rules.GUARD_RULES)
    if there(f"ip6tables-{kind}-restore"):
        try:
            restore("ip6tables", kind, rules.GUARD_RULES)
        except Failed as e:
            tell(f"cannot set rules for IPv6: {e}")  # a kernel without it
    run(
        capture.argv(found, kind, proxy.pw_uid, proxy.pw_gid, ssh),
        extra=capture.environment(found, spared_gids()),
    )
    if not any(rules.captured(saved(family, kind)) for family in FAMILIES):
        raise Failed(f"istio-iptables set no capture rules in {kind}")


def spared_gids() -> list[int]:
    """Checks are never captured, whoever makes them."""
    return [grp.getgrnam(name).gr_gid for name in (proxyunit.AGENT_GROUP, execunit.GROUP)]


def _close(found: settings.Settings, kind: str, ssh: set[int]) -> bool:
    """Whether nothing goes around the mesh by IPv6. A failure is told, and costs no traffic."""
    if not Path(IPV6_ADDRESSES).exists():
        return True
    script = rules.closed(
        capture.spared_inbound(found, ssh), found.outbound_ports,
        (*capture.METADATA, *found.cidrs), pwd.getpwnam(proxyunit.USER).pw_uid, spared_gids(),
    )  # fmt: skip
    try:
        restore("ip6tables", kind, script)
    except Failed as e:
        tell(f"cannot close IPv6: {e}")
        return False
    return True


def publish(content: Mapping[str, object]) -> None:
    temporary = Path(f"{proxyunit.RULES}.new")
    temporary.write_text(json.dumps(content))
    temporary.chmod(0o644)
    temporary.replace(proxyunit.RULES)


def main() -> int:
    os.chdir("/")  # systemd starts us in a directory of the proxy's user
    os.umask(0o077)
    try:
        apply(os.environ.get("INVOCATION_ID", ""))
    except (Failed, OSError, KeyError, settings.Unusable, trusted.Untrusted) as e:
        tell(f"cannot set the capture rules: {e}")
        return 1
    return 0
