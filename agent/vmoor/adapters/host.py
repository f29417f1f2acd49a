"""Who and where this VM is: its name, what proves that it is still the same, its addresses."""

from __future__ import annotations

import array
import fcntl
import hashlib
import ipaddress
import json
import re
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmoor.errors import LocalFault, Misconfigured, quoted
from vmoor.model import cloud
from vmoor.model.machine import GENERIC_NAMES, Machine
from vmoor.model.service import DNS_LABEL

INSTANCE_DATA = "run/cloud-init/instance-data.json"
INSTANCE_DATA_LIMIT = 1 << 20  # bytes; a file with a large user-data has some 10 KB
HASH_CHARS = 16  # 64 bits: told apart are clones of one image
_SIOCGIFCONF = 0x8912  # linux/sockios.h
_IFREQ = 40 if struct.calcsize("P") == 8 else 32  # bytes of struct ifreq  # noqa: PLR2004
_ADDRESSES = 256
_IPV4_ONLY = "and the mesh reaches VMs by IPv4 only"


class LocalHost:
    """Port `Host`, and `machine`. `boot_id` as systemd tells it, "" = the kernel's; `root` is for
    tests.
    """

    def __init__(self, root: str = "/", boot_id: str = "") -> None:
        self._root = Path(root)
        self._boot_id = boot_id

    def machine(self, name: str) -> Machine:
        """`name` is vm.name of the configuration, "" = instance id, else hostname.

        Raises Misconfigured when none of them can be this VM's name, LocalFault without a
        machine-id.
        """
        instance = str(self._cloud().get("instance_id") or "")
        proof = f"{self._text('etc/machine-id')}\n{instance}"
        return Machine(
            name=self._name(name, instance),
            machine_hash=hashlib.sha256(proof.encode()).hexdigest()[:HASH_CHARS],
            boot_id=self._boot_id or self._text("proc/sys/kernel/random/boot_id"),
        )

    def _name(self, configured: str, instance: str) -> str:
        hostname = socket.gethostname().partition(".")[0]
        tried = [configured] if configured else [instance, hostname]
        for candidate in tried:
            label = candidate.lower()
            if DNS_LABEL.fullmatch(label) and label not in GENERIC_NAMES:
                return label
        told = " or ".join(repr(quoted(candidate)) for candidate in tried if candidate)
        raise Misconfigured(
            [f"vm.name: {told} can't name this VM: not a DNS label, or a name that many have"],
            remedy="add the line  vm: {name: web-1}  (a name of its own for each VM)",
        )

    def instance_id(self) -> str:
        told = str(self._cloud().get("instance_id") or "")
        return "" if told in GENERIC_NAMES else told

    def locality(self) -> str:
        cloud = self._cloud()
        parts = [str(cloud.get(key) or "") for key in ("region", "availability_zone")]
        sound = [part for part in parts if re.fullmatch(r"[A-Za-z0-9._-]{1,63}", part)]
        return "/".join(sound) if parts[0] in sound else ""

    def cloud(self) -> str:
        return str(self._cloud().get("cloud_name") or "").lower()

    def interface_address(self, name: str) -> str:
        for interface, address in _addresses():
            if interface.partition(":")[0] == name and not address.is_loopback:
                return str(address)
        raise LocalFault(
            f"cannot tell this VM's address: interface {quoted(name)} has no IPv4 address",
            remedy="mend vm.interface, see `ip -4 address`",
        )

    def cidr_address(self, cidr: str) -> str:
        block = ipaddress.ip_network(cidr, strict=False)
        for _, address in _addresses():
            if address in block:
                return str(address)
        raise LocalFault(
            f"cannot tell this VM's address: none is within {cidr}",
            remedy="mend vm.cidr, see `ip -4 address`",
        )

    def public_address(self) -> str:
        told = cloud.public_address(self._instance_data())
        try:
            address = ipaddress.IPv4Address(told)
        except ValueError as e:
            words = f"{quoted(told)}, which is no IPv4 address" if told else "none"
            raise LocalFault(
                f"cannot tell this VM's public address: cloud-init tells {words}",
                remedy="set vm.address to it, or remove the line; see `cloud-init query ds`",
            ) from e
        return str(address)

    def route_address(self, peer: str) -> str:
        """Asks the routing table only: connecting a datagram socket sends nothing."""
        host, _, port = peer.rpartition(":")
        if host.startswith("["):
            raise LocalFault(
                f"cannot tell this VM's address: istiod's is {quoted(peer)}, {_IPV4_ONLY}",
                remedy="publish istiod's IPv4 address, or set vm.address",
            )
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, int(port)))
                address = str(probe.getsockname()[0])
        except (OSError, ValueError) as e:
            raise _unreachable(peer, e) from e
        if ipaddress.ip_address(address).is_loopback:
            raise LocalFault(
                f"cannot tell this VM's address: istiod at {quoted(peer)} is on loopback",
                remedy="set vm.address",
            )
        return address

    def _text(self, path: str) -> str:
        try:
            text = (self._root / path).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else "not ASCII"
            raise LocalFault(f"cannot read /{path}: {why}") from e
        if not text:
            raise LocalFault(f"cannot use /{path}: it is empty")
        return text

    def _cloud(self) -> Mapping[str, Any]:
        """What cloud-init says of every cloud alike."""
        v1 = self._instance_data().get("v1")
        return v1 if isinstance(v1, dict) else {}

    def _instance_data(self) -> Mapping[str, Any]:
        """{} on a VM without cloud-init."""
        path = self._root / INSTANCE_DATA
        try:
            with path.open("rb") as file:
                content = file.read(INSTANCE_DATA_LIMIT + 1)
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise LocalFault(f"cannot read /{INSTANCE_DATA}: {e.strerror}") from e
        if len(content) > INSTANCE_DATA_LIMIT:
            raise LocalFault(f"cannot use /{INSTANCE_DATA}: larger than 1 MiB")
        try:
            data = json.loads(content)
        except ValueError as e:
            raise LocalFault(f"cannot use /{INSTANCE_DATA}: not JSON") from e
        return data if isinstance(data, dict) else {}


def _unreachable(peer: str, error: Exception) -> LocalFault:
    """Why there is no way to istiod."""
    if all(address.is_loopback for _, address in _addresses()):
        why, remedy = f"it has no IPv4 address, {_IPV4_ONLY}", "give it one, see `ip -4 address`"
    else:
        said = error.strerror if isinstance(error, OSError) else "it is not HOST:PORT"
        why, remedy = (
            f"no route to istiod at {quoted(peer)}: {said}",
            "mend the route, or set vm.address",
        )
    return LocalFault(f"cannot tell this VM's address: {why}", remedy=remedy)


def _addresses() -> list[tuple[str, ipaddress.IPv4Address]]:
    """Interface (or its label, such as eth0:1) and address, in the kernel's order."""
    buffer = array.array("B", bytes(_IFREQ * _ADDRESSES))
    where, size = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        answer = fcntl.ioctl(asked, _SIOCGIFCONF, struct.pack("iP", size, where))
    (used,) = struct.unpack_from("i", answer)
    found = []
    for at in range(0, used, _IFREQ):
        entry = buffer[at : at + _IFREQ].tobytes()
        name = entry[:16].partition(b"\0")[0].decode(errors="replace")
        found.append((name, ipaddress.IPv4Address(entry[20:24])))
    return found
