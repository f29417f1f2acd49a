"""Disks that the test VMs start from: a Debian root and layers installed on top of it.

A disk is a stack of read-only directories for overlayfs, made once and kept in the cache under the
hash of its recipe. It never holds vmoor itself: cloud-init installs the package at each boot.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from tests.rig import build
from tests.rig.process import run

# openssh, sudo and the rest are what a cloud image has; the python3-* are vmoor's dependencies,
# which apt cannot fetch from inside a VM, and grpcio for an application that is asked by gRPC.
PACKAGES = """
    ca-certificates cloud-init curl dbus iproute2 iptables iputils-ping netcat-openbsd
    openssh-server polkitd procps python3 python3-click python3-grpcio python3-h2 python3-hvac
    python3-jeepney python3-jinja2 python3-jsonschema python3-prometheus-client python3-psutil
    python3-requests python3-systemd python3-yaml sudo systemd systemd-sysv
"""
# A kernel would bring kmod, without which Debian 13's systemd-modules-load fails; the others are
# for tests/system/test_trixie.py.
OF_RELEASE = {"bookworm": "", "trixie": " kmod needrestart unattended-upgrades"}

# networkd-wait-online would hold the boot for 2 minutes: nobody but the rig configures the link.
# The hotplug socket fails in a container, which has no udev.
MASKED = """\
apt-daily.timer apt-daily-upgrade.timer cloud-init-hotplugd.socket dpkg-db-backup.timer \
e2scrub_all.timer e2scrub_reap.service fstrim.timer getty.target systemd-binfmt.service \
systemd-networkd-wait-online.service systemd-pstore.service"""

# Host keys were made with the root; making them at each boot takes a second.
CLOUD_CFG = """\
datasource_list: [NoCloud]
network: {config: disabled}
locale: false
ssh_deletekeys: false
ssh_genkeytypes: [ed25519]
no_ssh_fingerprints: true
ssh: {emit_keys_to_console: false}
"""

# An empty machine-id would make every boot a first boot: seed.identity() gives each VM its own.
CUSTOMIZE = f"""\
set -eu
cd "$1"
mkdir -p var/log/journal
cp /dev/null etc/apt/sources.list
rm -f etc/machine-id var/lib/dbus/machine-id etc/hostname
for unit in {MASKED}; do ln -sf /dev/null "etc/systemd/system/$unit"; done
cat > etc/cloud/cloud.cfg.d/90_rig.cfg <<'END'
{CLOUD_CFG}END
"""

# dpkg's own fsyncs go to a directory that is thrown away when the install fails.
INSTALL = """\
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work,volatile" "$2/merged"
cp "$3" "$2/merged/package.deb"
chroot "$2/merged" dpkg --install --force-unsafe-io /package.deb
rm "$2/merged/package.deb"
"""

_BUILD_TIMEOUT = 1200.0  # seconds; 65 on an idle machine with a near mirror

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Disk:
    """Directories, the uppermost first."""

    layers: tuple[Path, ...]


def debian(tell: Tell = print, release: str = "bookworm") -> Disk:
    packages = PACKAGES + OF_RELEASE[release]
    recipe = packages + CUSTOMIZE + ("" if release == "bookworm" else release)
    folder = build.CACHE / "roots" / _digest(recipe)

    def make(scratch: Path) -> Path:
        hook = scratch / "customize"
        hook.write_text(CUSTOMIZE)
        run(
            ["mmdebstrap", "--quiet", "--variant=minbase",
             "--include=" + ",".join(packages.split()),
             f'--customize-hook=sh {hook} "$1"', release, str(scratch / "root")],
            timeout=_BUILD_TIMEOUT,
        )  # fmt: skip
        return scratch / "root"

    _once(folder, f"root of Debian's {release} for the test VMs", make, tell)
    return Disk((folder,))


def with_package(disk: Disk, package: Path, tell: Tell = print) -> Disk:
    """`disk` with one .deb installed; the file's name must tell its content apart from others."""
    stack = ":".join(str(layer) for layer in disk.layers)
    folder = build.CACHE / "roots" / _digest(f"{stack}\n{package}\n{INSTALL}")

    def make(scratch: Path) -> Path:
        for name in ("upper", "work", "merged"):
            (scratch / name).mkdir()
        (scratch / "upper").chmod(0o755)
        run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALL, "sh",
             stack, str(scratch), str(package)],
            timeout=_BUILD_TIMEOUT,
        )  # fmt: skip
        return scratch / "upper"

    _once(folder, f"root with {package.name}", make, tell)
    return Disk((folder, *disk.layers))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _once(folder: Path, what: str, make: Callable[[Path], Path], tell: Tell) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if folder.exists():
            return
        tell(f"{what}: started")
        began = time.monotonic()
        scratch = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            make(scratch).rename(folder)
        finally:
            shutil.rmtree(scratch)
        tell(f"{what}: done in {time.monotonic() - began:.0f} s")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
