"""How `pilot-agent istio-iptables` is told to set the capture rules, and what it must spare.

Pure. SSH is spared whatever the configuration says: nobody may be locked out of a VM by its mesh.
That holds for port 22 and sshd's ports as of the proxy's start, not for one that sshd gets later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from vmoor.proxyunit import settings

PROXY_PORTS = (15090, 15021, 15020)  # metrics and health, which must answer without a mesh
SSH_PORT = 22
METADATA = ("169.254.169.254/32", "fd00:ec2::254/128")  # clouds' instance metadata


def argv(
    found: settings.Settings, backend: str, uid: int, gid: int, ssh: Iterable[int]
) -> list[str]:
    arguments = [
        found.pilot_agent, "istio-iptables",
        "-p", "15001", "-z", "15006", "-u", str(uid), "-g", str(gid), "-m", found.mode.upper(),
        "-b", "*", "-d", _joined(sorted(spared_inbound(found, ssh))),
        "-i", "*", "-x", _joined((*METADATA, *found.cidrs)),
        "--force-iptables-binary", backend,
    ]  # fmt: skip
    if found.outbound_ports:
        arguments += ["-o", _joined(sorted(set(found.outbound_ports)))]
    return arguments


def spared_inbound(found: settings.Settings, ssh: Iterable[int]) -> set[int]:
    return {SSH_PORT, *PROXY_PORTS, *ssh, *found.inbound_ports}


def environment(found: settings.Settings, spared_gids: Sequence[int]) -> Mapping[str, str]:
    """What istio-iptables reads from its environment only."""
    return {
        "ISTIO_META_DNS_CAPTURE": "true" if found.dns_capture else "false",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": _joined(spared_gids),
    }


def _joined(items: Sequence[object]) -> str:
    return ",".join(str(item) for item in items)


def sshd_ports(text: str) -> set[int]:
    """From `sshd -T`: port and listenaddress."""
    found = re.findall(r"^(?:port|listenaddress \S*:)\s*(\d+)", text, re.MULTILINE)
    return {int(port) for port in found}


def socket_ports(text: str) -> set[int]:
    """From `systemctl show -p Listen`: "Listen=[::]:2222 (Stream)", one line per socket."""
    return {int(port) for port in re.findall(r":(\d+) \(Stream\)", text)}


def listening_ports(text: str) -> set[int]:
    """From `ss -tlnpeH`: what root's processes called sshd listen on."""
    ports = set()
    for line in text.splitlines():
        fields = line.split()
        # ss prints a uid only when it isn't root's.
        if '(("sshd",' in line and not any(field.startswith("uid:") for field in fields):
            ports.add(int(fields[3].rpartition(":")[2]))
    return ports
