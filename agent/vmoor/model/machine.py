"""The VM itself: its name, and the proofs that it is still the same one."""

from __future__ import annotations

from typing import NamedTuple

# What an image is called before anyone named the machine: two of them would be one VM.
GENERIC_NAMES = frozenset(
    ("localhost", "debian", "ubuntu", "centos", "rocky", "almalinux", "fedora",
     "iid-datasource-none")
)  # fmt: skip


class Machine(NamedTuple):
    name: str  # a DNS label
    machine_hash: str  # of machine-id and instance id; equal after a reboot, not after a clone
    boot_id: str

    @property
    def holder(self) -> str:
        """The Lease's holderIdentity."""
        return f"{self.machine_hash}/{self.boot_id}"
