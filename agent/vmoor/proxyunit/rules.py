"""The capture rules as iptables shows them: whether they are in force, how they are removed.

Pure. They are removed by what iptables-save shows, not by `istio-iptables --cleanup-only`: that
one needs the very settings, nameservers and addresses of the moment in which they were set.
"""

from __future__ import annotations

import re

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
