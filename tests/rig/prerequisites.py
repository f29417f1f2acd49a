"""What the rig needs of the machine: told in one line before anything starts, or installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.rig.errors import RigError, RigUnavailable

PACKAGES = (
    "curl",
    "dbus-daemon",
    "iproute2",
    "iptables",
    "mmdebstrap",
    "systemd-container",
    "wrk",
)

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}  # bits: linux/capability.h
_MEMORY_GB = 4  # the istiod compilation's peak is 2.8 GB; a rig with three VMs is about 1.5 GB
_DISK_GB = (
    12  # sources 1.4, Go's build cache 4.3, binaries 0.6, roots of three releases 1.5, and room
)
_BUILT_DISK_GB = 4  # the roots, and what running VMs write


def check(cache: Path, *, built: bool) -> None:
    """RigUnavailable, with everything that is missing, if this machine can't run the rig."""
    missing = [*_missing_rights(), *_missing_room(cache, _BUILT_DISK_GB if built else _DISK_GB)]
    if not shutil.which("apt-get"):
        missing.append("apt-get (Debian 12 is what is tested)")
    if missing:
        raise RigUnavailable(f"cannot run the rig on this machine: needs {', '.join(missing)}")


def _missing_rights() -> list[str]:
    if os.geteuid() != 0:
        return ["root"]
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        return missing
    # A container may hold the capabilities and still be forbidden the system call.
    trial = ["unshare", "--net", "--mount", "true"]
    tried = subprocess.run(trial, capture_output=True, check=False)
    return [] if tried.returncode == 0 else [f"namespaces ({tried.stderr.decode().strip()})"]


def _missing_room(cache: Path, disk_gb: int) -> list[str]:
    missing = []
    memory = Path("/proc/meminfo").read_text()
    total_gb = int(memory.partition("MemTotal:")[2].split()[0]) / 1e6
    if total_gb < _MEMORY_GB * 0.9:  # a machine sold with 4 GB shows a little less
        missing.append(f"{_MEMORY_GB} GB of memory (it has {total_gb:.1f})")
    cache.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(cache).free / 1e9
    if free_gb < disk_gb:
        missing.append(f"{disk_gb} GB free in {cache} (it has {free_gb:.1f})")
    return missing


def install() -> None:
    """Install the Debian packages that are missing."""
    query = ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *PACKAGES]
    known = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    missing = [name for name in PACKAGES if f"{name} installed" not in known.splitlines()]
    if missing:
        print(f"installing {' '.join(missing)}", flush=True)
        apt_install(missing)
    _check_kernel()


def apt_install(packages: Sequence[str]) -> None:
    """Install; if that fails, once more with fresh package lists."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "--quiet", "--yes", "--no-install-recommends", "install", *packages]
    for command in (install, ["apt-get", "--quiet", "update"], install):
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        if done.returncode == 0 and command is install:
            return
    raise RigError(f"cannot install {' '.join(packages)}: {done.stderr.strip()}")


def _check_kernel() -> None:
    """Bridges and veth pairs may be missing from a container's or a cloud's kernel."""
    script = "ip link add br9 type bridge && ip link add ve8 type veth peer name ve9"
    tried = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        reason = tried.stderr.strip()
        raise RigUnavailable(f"cannot run the rig on this machine: no bridge or veth: {reason}")
