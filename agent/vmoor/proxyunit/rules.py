"""The capture rules as iptables shows them: whether they are in force, how they are removed.

Pure. They are removed by what iptables-save shows, not by `istio-iptables --cleanup-only`: that
one needs the very settings, nameservers and addresses of the moment in which they were set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

BACKENDS = ("nft", "legacy")
GUARD = "VMOOR_GUARD"
_CHAIN = re.compile(r":((?:ISTIO|VMOOR)_[A-Z_]+) ")
_OURS = re.compile(r"-j (?:ISTIO|VMOOR)_[A-Z_]+")
_BUILT_IN = re.compile(r"-A (?:PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING) ")

# Connections from before the rules go on as they are. Without it conntrack, which starts with the
# first NAT rule, takes each one's next packet for a new connection and redirects it: an SSH
# session that is just writing would be cut off, whatever ports are excluded.
GUARD_RULES = f"""\
*nat
:{GUARD} - [0:0]
-A {GUARD} -p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT
-I PREROUTING 1 -p tcp -j {GUARD}
-I OUTPUT 1 -p tcp -j {GUARD}
COMMIT
"""

CLOSED_IN, CLOSED_OUT = "VMOOR_CLOSED_IN", "VMOOR_CLOSED_OUT"
_NEW = "-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"
LINK_LOCAL, DNS_PORT = "fe80::/10", 53


def closed(
    inbound: Iterable[int], outbound: Iterable[int], cidrs: Iterable[str], uid: int,
    gids: Sequence[int],
) -> str:  # fmt: skip
    """For ip6tables-restore: new TCP connections by IPv6 are refused, since nothing captures them.

    But for what capture spares as well; the first packet alone is looked at, so whatever is open
    stays so, and answers go out. A reset lets clients fall back to IPv4 at once.
    """
    into = ["-i lo", f"-s {LINK_LOCAL}", *(f"-p tcp --dport {p}" for p in sorted(set(inbound)))]
    out = [
        "-o lo",
        *(f"-d {cidr}" for cidr in (LINK_LOCAL, *cidrs) if ":" in cidr),
        f"-m owner --uid-owner {uid}",
        *(f"-m owner --gid-owner {gid}" for gid in gids),
        *(f"-p tcp --dport {port}" for port in sorted({DNS_PORT, *outbound})),
    ]
    lines = ["*filter", f":{CLOSED_IN} - [0:0]", f":{CLOSED_OUT} - [0:0]"]
    for chain, spared, hook in ((CLOSED_IN, into, "INPUT"), (CLOSED_OUT, out, "OUTPUT")):
        lines += [f"-A {chain} {match} -j RETURN" for match in spared]
        lines += [f"-A {chain} -p tcp -j REJECT --reject-with tcp-reset"]
        lines += [f"-I {hook} 1 {_NEW} -j {chain}"]
    return "\n".join([*lines, "COMMIT", ""])


def removal(saved: str) -> str:
    """For `iptables-restore --noflush`, to undo what `saved` shows of ours; "" if nothing."""
    script = ""
    for table, lines in _by_table(saved).items():
        chains = [found.group(1) for line in lines if (found := _CHAIN.match(line))]
        jumps = [line for line in lines if _BUILT_IN.match(line) and _OURS.search(line)]
        if chains or jumps:
            steps = [f"*{table}", *(f"-D{line[2:]}" for line in jumps)]
            steps += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
            script += "\n".join((*steps, "COMMIT", ""))
    return script


def captured(saved: str) -> bool:
    """Whether both directions are in force."""
    nat = _by_table(saved).get("nat", [])
    return {"-A PREROUTING -p tcp -j ISTIO_INBOUND", "-A OUTPUT -j ISTIO_OUTPUT"} <= set(nat)


def _by_table(saved: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:].strip(), [])
        lines.append(line)
    return tables
