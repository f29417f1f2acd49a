"""The rig's network: one bridge in a namespace of its own, a namespace on it for each VM.

Nothing leads out of it: the rig's namespace has no interface but the bridge, so no test can
reach anything but the rig. A VM's default route points at the bridge all the same, because
without one it couldn't even send to a virtual address that its proxy captures.
"""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import Optional

from tests.rig import ledger as ledgers
from tests.rig.process import run

ADDRESS = "198.18.0.1"  # RFC 2544's benchmark range: never a real network's
_BRIDGE = "mesh0"
_PREFIX = 16


class Port:
    """A VM's place in the network: its namespace, with eth0 on the rig's bridge."""

    def __init__(self, rig_netns: str, name: str, address: str, host_if: str) -> None:
        self.address = address
        self.netns_name = f"{rig_netns}-{name}"
        self.netns_path = Path("/run/netns") / self.netns_name
        self.host_if = host_if
        self._rig_netns = rig_netns

    def link_down(self) -> None:
        """Pull the cable, on the bridge's side."""
        run(["ip", "-n", self._rig_netns, "link", "set", self.host_if, "down"])

    def link_up(self) -> None:
        run(["ip", "-n", self._rig_netns, "link", "set", self.host_if, "up"])

    def close(self) -> None:
        """Remove the link and the name; processes still inside keep an empty namespace."""
        if self.netns_path.exists():
            run(["ip", "-n", self._rig_netns, "link", "delete", self.host_if])
            run(["ip", "netns", "delete", self.netns_name])

    def create(self) -> None:
        here, there = self._rig_netns, self.netns_name
        run(["ip", "netns", "add", there])
        # Both ends are born inside their namespaces: interface names never meet other rigs'.
        run(["ip", "-n", here, "link", "add", self.host_if, "master", _BRIDGE, "type", "veth",
             "peer", "name", "eth0", "netns", there])  # fmt: skip
        self.link_up()
        run(["ip", "-n", there, "address", "add", f"{self.address}/{_PREFIX}", "dev", "eth0"])
        run(["ip", "-n", there, "link", "set", "lo", "up"])
        run(["ip", "-n", there, "link", "set", "eth0", "up"])
        run(["ip", "-n", there, "route", "add", "default", "via", ADDRESS])


class Network:
    """Context manager; at its start it also removes what dead rigs left on this machine."""

    def __init__(self, rig_id: Optional[str] = None) -> None:
        self.rig_id = rig_id or ledgers.new_rig_id()
        self.netns_name = f"vmoor-{self.rig_id}"
        self.netns_path = Path("/run/netns") / self.netns_name
        self._ports = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Network:  # noqa: PYI034
        ledgers.sweep()
        self.ledger = ledgers.Ledger(self.rig_id)
        self._stack.callback(self.ledger.close)
        run(["ip", "netns", "add", self.netns_name])
        self._stack.callback(run, ["ip", "netns", "delete", self.netns_name])
        # The address is fixed, or the bridge would change it with its ports and ARP caches lie.
        for command in (
            f"link add {_BRIDGE} address 02:76:6d:00:00:01 type bridge stp_state 0",
            f"address add {ADDRESS}/{_PREFIX} dev {_BRIDGE}",
            "link set lo up",
            f"link set {_BRIDGE} up",
        ):
            run(["ip", "-n", self.netns_name, *command.split()])
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def attach(self, name: str, address: str) -> Port:
        """A namespace vmoor-<rig>-<name> with this IPv4 address inside 198.18.0.0/16."""
        port = Port(self.netns_name, name, address, f"port{next(self._ports)}")
        self._stack.callback(port.close)
        port.create()
        return port
