"""When a VM reached each step of its way into the mesh, as others noted it.

systemd's monotonic timestamps are the host's clock: containers share it. Vault's audit log has
wall clock time. All instants here are time.monotonic() seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.bench.scene import AGENT, PROXY
from tests.rig.machine import Machine
from tests.sources import Audit

_OF_UNITS = {
    "cloud-init": ("cloud-init-local.service", "ExecMainStartTimestampMonotonic"),
    "package install": ("cloud-final.service", "ExecMainStartTimestampMonotonic"),
    "agent start": (AGENT, "ExecMainStartTimestampMonotonic"),
    "proxy process": (PROXY, "ExecMainStartTimestampMonotonic"),
    "proxy": (PROXY, "ActiveEnterTimestampMonotonic"),
}
_LOGIN, _CREDS = "auth/approle/login", "kubernetes/creds/"
BOOT = ("systemd", "cloud-init", "package install", "agent start")
START = ("agent start", "login", "credentials", "proxy process", "proxy", "mesh")


class Steps:
    """Counts from its making; requests before it do not count."""

    def __init__(self, audit: Audit, vm: Machine) -> None:
        self._audit, self._vm = audit, vm
        self._earlier = {path: self._count(path) for path in (_LOGIN, _CREDS)}
        self._began = time.monotonic()

    def _count(self, path: str) -> int:
        count = 0
        while self._audit.granted(self._vm.address, path, count + 1) is not None:
            count += 1
        return count

    def _granted(self, path: str, number: int) -> float:
        at = self._audit.granted(self._vm.address, path, self._earlier[path] + number)
        if at is None:
            raise RuntimeError(f"{self._vm.name}: no grant of {path} in Vault's audit log")
        return at - time.time() + time.monotonic()

    def reached(self, listed: float) -> Mapping[str, float]:
        """Seconds until each step was reached; `listed` = the mesh."""
        at = {
            name: int(self._vm.unit_property(unit, prop)) / 1e6
            for name, (unit, prop) in _OF_UNITS.items()
        }
        shown = self._vm.run("systemctl", "show", "--value", "-p", "UserspaceTimestampMonotonic")
        at["systemd"] = int(shown.stdout) / 1e6
        at["login"] = self._granted(_LOGIN, 1)
        at["credentials"] = self._granted(_CREDS, 2)
        at["mesh"] = listed
        return {name: when - self._began for name, when in at.items()}


def shares(reached: Mapping[str, float], names: tuple[str, ...], before: float = 0.0) -> str:
    """What each step added to the one before."""
    parts = []
    for name in names:
        parts.append(f"{name} {max(0.0, reached[name] - before):.2f}")
        before = max(before, reached[name])
    return ", ".join(parts)


def middle(runs: list[Mapping[str, float]]) -> Mapping[str, float]:
    """The run whose end is the median one: its parts add up, medians of parts would not."""
    return sorted(runs, key=lambda reached: reached["mesh"])[len(runs) // 2]
