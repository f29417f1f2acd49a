"""What the demo, the system tests and the benchmarks share: a mesh that vmoor's own commands set
up, the built package in an apt repository, and VMs of the fleet on the rig's network.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Optional

from tests import mesh_setup, shop
from tests.rig import build, prerequisites, process, repository, root, sidecar
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.rig.rig import Rig

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = (
    "agent/vmoor",
    "templates",
    "packaging",
    "debian",
    "pyproject.toml",
    "setup.cfg",
    "CHANGELOG.md",
)

CLUSTER = f"outbound|80||{mesh_setup.HOST}"  # what Envoy calls it

_SOURCE = "--apt-source=deb [trusted=yes] file:/srv/repo ./"

Tell = Callable[[str], object]


class Stage:
    """Context manager; when it is left by an exception, the VMs' logs are kept with the rig's."""

    def __init__(
        self, *, mesh_config: Optional[Mapping[str, Any]] = None, tell: Tell = print
    ) -> None:
        self._mesh_config = mesh_config
        self._tell = tell
        self._stack = ExitStack()
        self._machines: list[Machine] = []

    def __enter__(self) -> Stage:  # noqa: PYI034
        prerequisites.check(build.CACHE, built=build.locate().complete)
        prerequisites.install()
        try:
            self._start()
        except BaseException as e:
            self.__exit__(type(e), e, e.__traceback__)
            raise
        return self

    def _start(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(3) as pool:
            binaries = pool.submit(build.build)
            debian = pool.submit(root.debian, self._tell)
            package = pool.submit(built_package, self._tell)
            parts = binaries.result()
            disks = pool.submit(self._layers, parts, debian.result())
            self.rig = self._stack.enter_context(Rig(self._mesh_config))
            self._tell(f"the mesh runs, {time.monotonic() - began:.1f} s after the start")
            self.mesh = mesh_setup.moor_ready(self.rig)
            self._tell(f"set up by `vmoor admin`, {time.monotonic() - began:.1f} s")
            self.plain_disk, self.shop_disk = disks.result()
            self.packages = self.rig.workdir / "repository"
            self.packages.mkdir()
            shutil.copy(package.result(), self.packages)
        repository.index(self.packages)

    def shop_disk_of(self, release: str) -> root.Disk:
        """Another release of Debian with the same two packages."""
        return self._layers(build.locate(), root.debian(self._tell, release))[1]

    def _layers(self, parts: build.Binaries, debian: root.Disk) -> tuple[root.Disk, root.Disk]:
        """As a cloud image with Istio's sidecar package, and the same with an application."""
        plain = root.with_package(debian, sidecar.package(parts, self._tell), self._tell)
        return plain, root.with_package(plain, shop.package(), self._tell)

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if kind is not None and hasattr(self, "rig"):
            for vm in self._machines:
                vm.collect_logs(self.rig.log_dir)
        # As a `with` would do it: the rig keeps its logs when it sees the exception.
        self._stack.__exit__(kind, error, traceback)

    def vm(
        self,
        name: str,
        address: str,
        *,
        wrapped: bool = True,
        web: bool = True,
        user_data: Optional[str] = None,
        meta_data: Optional[Mapping[str, str]] = None,
        disk: Optional[root.Disk] = None,
    ) -> Machine:
        """A VM that has not booted yet, of workload `web`, or of `client` and without the shop.

        Its SecretID comes by instance metadata, wrapped, unless `meta_data` says otherwise.
        """
        if meta_data is None:
            meta_data = self.mesh.meta_data() if wrapped else {}
        machine = Machine(
            self.rig.network, name, address,
            disk=disk or (self.shop_disk if web else self.plain_disk),
            workdir=self.rig.workdir / "vms",
            packages=self.packages, user_data=user_data or self.user_data(web=web),
            meta_data={"instance-id": name, **meta_data},  # the VM's name in the mesh
        )  # fmt: skip
        self._machines.append(machine)
        return self._stack.enter_context(machine)

    def client(self, name: str, address: str) -> Machine:
        return self.vm(name, address, web=False)

    def user_data(self, *options: str, web: bool = True) -> str:
        """The fleet's text; `options` are more of `vmoor admin user-data`'s."""
        if web:
            return self.mesh.user_data(_SOURCE, *options)
        return self.mesh.user_data(_SOURCE, "--name=client", *options, services=())

    def boot(self, *machines: Machine) -> None:
        """Side by side; returns when each one's cloud-init is done."""
        with ThreadPoolExecutor(len(machines)) as pool:
            for each in [pool.submit(_set_up, machine) for machine in machines]:
                each.result()


def _set_up(machine: Machine) -> None:
    machine.boot()
    machine.wait_cloud_init()


def kill_main(vm: Machine, unit: str) -> float:
    """kill -9 of a unit's main process from outside; time.monotonic() of the instant."""
    inside = vm.unit_property(unit, "MainPID")
    namespace = Path(f"/proc/{vm.pid1}/ns/pid").readlink()
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            numbers = status.read_text().partition("NSpid:")[2].partition("\n")[0].split()
            same = numbers[-1] == inside and (status.parent / "ns/pid").readlink() == namespace
        except OSError:
            continue
        if same:
            at = time.monotonic()
            os.kill(int(numbers[0]), signal.SIGKILL)
            return at
    raise RigError(f"{vm.name}: {unit} has no main process")


def built_package(tell: Tell = print) -> Path:
    """dist/vmoor_*.deb, built anew when what it is made from has changed."""
    dist = PROJECT / "dist"
    dist.mkdir(exist_ok=True)
    mark, digest = dist / ".made-from", _digest()
    with (dist / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = sorted(dist.glob("vmoor_*.deb"))
        if not made or not mark.exists() or mark.read_text() != digest:
            tell("building the package")
            began = time.monotonic()
            process.run([str(PROJECT / "packaging/build-deb.sh")], timeout=900)
            mark.write_text(digest)
            tell(f"the package is built, {time.monotonic() - began:.0f} s")
            made = sorted(dist.glob("vmoor_*.deb"))
    return made[-1]


def _digest() -> str:
    digest = hashlib.sha256()
    for top in SOURCES:
        path = PROJECT / top
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(PROJECT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()
