"""A reaper of the checkout in the rig, with its own account's token, and VMs without a machine."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from vmoor.adapters.clock import SystemClock
from vmoor.adapters.kube import Access, Kube
from vmoor.errors import VmoorError
from vmoor.model.secret import Secret
from vmoor.model.service import Workload

from tests.rig import inside
from tests.rig.process import Process
from tests.rig.rig import Rig
from tests.unit.reaper.world import SimVm

T = TypeVar("T")

_ROOT = Path(__file__).resolve().parents[1]
_NUMBERS = itertools.count(1)
BEAT_S = 3.0


def prepare(rig: Rig, vmoor: Callable[[str], str]) -> Path:
    """What `admin manifests --reaper` prints is applied; the path of a token of the account."""
    vmoor("vmoor admin manifests --reaper | kubectl apply -f -")
    token = rig.workdir / "reaper-token"
    made = rig.kubectl("create", "token", "vmoor-reaper", "-n", "vmoor-system", "--duration=2h")
    token.write_text(made.strip())
    return token


# Found before Debian's own by a PYTHONPATH that begins with its folder.
_WRONG_CLOCK = """\
import time
real = time.time
def wrong():
    with open({path!r}) as file:
        return real() + float(file.read())
time.time = wrong
"""


class Reaper:
    """One process; a context manager."""

    def __init__(self, rig: Rig, token: Path, *options: str, server: str = "") -> None:
        self.rig = rig
        self.name = f"reaper-{next(_NUMBERS)}"
        self._argv = [
            "/usr/bin/python3", "-m", "vmoor", "reaper", f"--server={server or rig.kube.url}",
            f"--ca={rig.authority.path}", f"--token-file={token}", *options,
        ]  # fmt: skip
        self.process: Optional[Process] = None
        self._seam = rig.workdir / f"{self.name}-clock"
        self._seam.mkdir()
        seam = _WRONG_CLOCK.format(path=str(self._seam / "off"))
        (self._seam / "sitecustomize.py").write_text(seam)
        self.jump(0)

    def jump(self, seconds: float) -> None:
        """Its wall clock is so much ahead of the machine's from now on."""
        (self._seam / "off.new").write_text(str(seconds))
        (self._seam / "off.new").replace(self._seam / "off")

    def __enter__(self) -> Reaper:  # noqa: PYI034
        path = f"{self._seam}:{_ROOT / 'agent'}"
        environment = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = self.rig.ground.spawn(self.name, self._argv, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.running:
            self.process.stop()

    @property
    def log(self) -> str:
        return (self.rig.log_dir / f"{self.name}.log").read_text()

    def removed(self) -> list[str]:
        """Its own word of what it took out or deleted."""
        return [line for line in self.log.splitlines()
                if "out of the mesh" in line or "deleted" in line]  # fmt: skip


def prepared(rig: Rig, vmoor: Callable[[str], str]) -> Reaper:
    return Reaper(rig, prepare(rig, vmoor))


def lease(rig: Rig, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        rig.kubectl("get", "lease", name, "-n", "vmoor-system", "-o", "json")
    )
    return found


def leader(rig: Rig) -> str:
    """Whose name the election's Lease bears, "" = nobody's."""
    try:
        return str(lease(rig, "vmoor-reaper")["spec"].get("holderIdentity") or "")
    except Exception:  # noqa: BLE001 - not there yet
        return ""


class WrongClock(SystemClock):
    def __init__(self, off: float) -> None:
        self._off = off

    def wall(self) -> float:
        return super().wall() + self._off


class Sims:
    """VMs of which there is a Lease, that beats, and an entry; no machine answers there."""

    def __init__(
        self,
        rig: Rig,
        workload: Workload,
        names: Sequence[str],
        *,
        services: Sequence[str] = ("web",),
        localities: Sequence[str] = ("",),
        server: str = "",
        off: Sequence[float] = (0.0,),
    ) -> None:
        """`off`: by how much their clocks are ahead, in turn."""
        access = Access(
            (server or rig.kube.url,), rig.kube.ca, Secret(rig.kube.token), workload.namespace,
            "admin", "",
        )  # fmt: skip
        self._rig, self._services = rig, services
        self._netns = rig.network.netns_path
        self._pool = ThreadPoolExecutor(1, initializer=inside.enter, initargs=(self._netns,))
        self._kube = Kube(lambda: access)
        self.all = {
            name: SimVm(
                self._kube, WrongClock(off[n % len(off)]), name, workload=workload,
                address=f"198.18.{90 + n // 200}.{1 + n % 200}",
                locality=localities[n % len(localities)],
            )
            for n, name in enumerate(names)
        }  # fmt: skip
        self._due: dict[str, float] = {}
        self._done = threading.Event()
        self.late = 0.0

    def __enter__(self) -> Sims:  # noqa: PYI034
        for name, vm in self.all.items():
            self.do(lambda vm=vm: (vm.beat(), vm.serve(*self._services)))  # type: ignore[misc]
            self._due[name] = time.monotonic() + BEAT_S
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(10)
        self._pool.shutdown()
        self._kube.close()
        for name in self.all:
            self._rig.kubectl(
                "delete", "workloadentries,leases", "-A", "-l", f"vmoor.io/vm={name}",
                "--wait=false",
            )  # fmt: skip

    def do(self, what: Callable[[], T]) -> T:
        return self._pool.submit(what).result()

    def die(self, names: Iterable[str]) -> float:
        """They beat no more; time.monotonic() of the instant."""
        for name in names:
            self._due.pop(name, None)
        return time.monotonic()

    def live(self, names: Iterable[str]) -> None:
        for name in names:
            self._due[name] = time.monotonic()

    def healthy(self) -> set[str]:
        """Names of those whose entries all say Healthy=True, as the API server has it."""
        return {
            name for name, vm in self.all.items()
            if all(self.do(lambda vm=vm, s=s: vm.health(s))[0] == "True" for s in self._services)  # type: ignore[misc]
        }  # fmt: skip

    def _beat(self) -> None:
        while not self._done.wait(0.1):
            now = time.monotonic()
            for name, due in list(self._due.items()):
                if due > now:
                    continue
                with suppress(VmoorError):
                    self.do(self.all[name].beat)
                if name in self._due:
                    self._due[name] = now + BEAT_S
