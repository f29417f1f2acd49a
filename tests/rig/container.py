"""One boot of one VM: systemd-nspawn on an overlay of its disk, and its certain end.

The overlay is mounted in a mount namespace of its own and everything runs in a PID namespace of
its own, so nothing has to be undone by hand: when the outermost process ends, by a kill of the
test process too, the kernel ends the whole machine and unmounts its disk. (The guest's PID 1
survives a kill of nspawn alone.)
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from tests.rig import process
from tests.rig.ledger import Ledger
from tests.rig.root import Disk

CGROUP_TREES = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")

# A cgroup per VM: two guests' PID 1 in one would manage each other's slices.
# `volatile` spares the fsyncs: the host does not lose power, whatever the VM believes.
START = """\
set -eu
lower=$1 disk=$2 cgroup=$3
shift 3
join() {
    mkdir -p "$1" && echo 0 > "$1/cgroup.procs"
}
for tree in $CGROUP_TREES; do
    [ -e "$tree/cgroup.procs" ] || continue
    join "$tree/$cgroup" || join "$tree/$cgroup"  # another rig may have swept the empty one
done
mount -t overlay overlay \
    -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work,volatile" "$disk/merged"
exec systemd-nspawn -D "$disk/merged" "$@"
"""

# Nothing of the test's own environment. As in any VM of today: a pure cgroup2, and /proc/sys/net
# (which is the network namespace's own) can be written.
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "CGROUP_TREES": " ".join(CGROUP_TREES),
    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
    "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
}


@dataclass(frozen=True)
class Plan:
    unique: str
    hostname: str
    disk: Disk
    folder: Path
    packages: Path
    netns: Path


class Container:
    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        _sweep_cgroups()
        # Left by the last boot; `volatile` refuses to be mounted on it again.
        shutil.rmtree(plan.folder / "work", ignore_errors=True)
        for name in ("upper", "work", "merged"):
            (plan.folder / name).mkdir(exist_ok=True)
        self._cgroup = f"vmoor-rig-{plan.unique}"
        self._pid1: Optional[int] = None
        self._process = process.Process(
            plan.hostname, self._argv(plan), log=plan.folder / "console.log", ledger=ledger,
            env=ENVIRONMENT,
        )  # fmt: skip

    def _argv(self, plan: Plan) -> list[str]:
        layers = ":".join(str(layer) for layer in plan.disk.layers)
        return [
            "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc",
            "--kill-child", "sh", "-c", START, "sh", layers, str(plan.folder), self._cgroup,
            "--boot", "--register=no", "--keep-unit", "--link-journal=no", "--capability=all",
            f"--network-namespace-path={plan.netns}", "--resolv-conf=off", "--timezone=off",
            f"--machine={plan.unique}", f"--hostname={plan.hostname}",
            f"--bind-ro={plan.packages}:/srv/repo", "--console=pipe",
        ]  # fmt: skip

    @property
    def alive(self) -> bool:
        return self._process.running

    def pid1(self) -> Optional[int]:
        """The guest's PID 1 as the host counts, None until it runs."""
        if self._pid1 is None:
            self._pid1 = _innermost(self._process.pid)
        return self._pid1

    def wait_start(self) -> None:
        """Returns when the guest's systemd takes commands."""
        self._process.wait_until(self._takes_commands, 30, "its systemd takes commands")

    def _takes_commands(self) -> bool:
        pid = self.pid1()
        return pid is not None and Path(f"/proc/{pid}/root/run/systemd/private").exists()

    def wait_end(self, timeout: float) -> None:
        self._process.wait(timeout)
        self._remove_cgroups()

    def kill(self) -> None:
        """As a power cut: all at once, nobody is asked."""
        for nspawn in _children(self._process.pid):  # not unshare, which is there to reap it
            os.kill(nspawn, signal.SIGKILL)
        self._process.wait(10)
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        """Busy until the kernel is through with the guest's last processes."""
        tops = [Path(tree, self._cgroup) for tree in CGROUP_TREES]

        def gone() -> bool:
            return not sum(_is_left(top) for top in tops)

        process.wait_until(gone, 10, "the VM's last process to end", period=0.01)


def _sweep_cgroups() -> None:
    """Those of VMs whose test process was killed; nothing may be touched below a living one's."""
    for tree in CGROUP_TREES:
        for events in Path(tree).glob("vmoor-rig-*/cgroup.events"):
            with contextlib.suppress(OSError):
                if "populated 0" in events.read_text():
                    for other in CGROUP_TREES:
                        _is_left(Path(other, events.parent.name))


def _is_left(top: Path) -> bool:
    """Remove what can be removed of a cgroup and those below it."""
    for folder, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
    return top.exists()


def _innermost(pid: int) -> Optional[int]:
    """unshare → nspawn, PID 1 of its own namespace → the guest's PID 1, one namespace deeper."""
    for nspawn in _children(pid):
        for child in _children(nspawn):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{child}/status").read_text()
                numbers = status.partition("NSpid:")[2].partition("\n")[0].split()
                if len(numbers) >= 3 and numbers[-1] == "1":
                    return child
    return None


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
