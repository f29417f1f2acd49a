"""systemd as the agent needs it: the same promises of the fake and of a booted VM's systemd."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, Union

import pytest
import vmoor
from vmoor.adapters import markers
from vmoor.adapters.units import SystemdUnits
from vmoor.config import marker
from vmoor.errors import LocalFault
from vmoor.model.proxy import UnitState
from vmoor.runtime.bell import Bell

from tests.fakes.units import FakeUnits
from tests.rig import machine, network, root

WEB = "web.service"
SLOW = "slow.service"
UNITS = {
    WEB: "[Unit]\nStartLimitIntervalSec=0\n"
    "[Service]\nExecStart=sleep 1000\nRestart=on-failure\nRestartSec=100ms\n",
    SLOW: "[Service]\nExecStart=sleep 1000\nExecStop=sleep 1\n",
}


class Side(Protocol):
    @property
    def units(self) -> Union[FakeUnits, SystemdUnits]: ...

    def kill(self, name: str) -> None:
        """SIGKILL of the unit's main process; Restart= brings it back."""
        ...


class Fake:
    def __init__(self) -> None:
        self.units = FakeUnits(*UNITS)

    def kill(self, name: str) -> None:
        self.units.kill(name, restarted=True)


class Real:
    def __init__(self, vm: machine.Machine) -> None:
        self.vm = vm
        self.units = SystemdUnits(f"/proc/{vm.pid1}/root/run/dbus/system_bus_socket")

    def kill(self, name: str) -> None:
        self.vm.run("systemctl", "kill", "--kill-whom=main", "-s", "KILL", name)

    @contextmanager
    def following(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.units.run, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            self.units.wake()
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machine.Machine]:
    folder = tmp_path_factory.mktemp("vm")
    with network.Network() as net, machine.Machine(
        net, "units", "198.18.0.41", disk=root.debian(), workdir=folder, packages=folder,
        user_data="#cloud-config\n{}\n",
    ) as vm:  # fmt: skip
        vm.boot()
        vm.wait_cloud_init()
        for name, text in UNITS.items():
            vm.write(f"/run/systemd/system/{name}", text)
        vm.run("systemctl", "daemon-reload")
        yield vm


@pytest.fixture
def real(vm: machine.Machine) -> Iterator[Real]:
    side = Real(vm)
    with side.following():
        yield side
        vm.run("systemctl", "kill", "-s", "KILL", SLOW, check=False)
        vm.run("systemctl", "stop", *UNITS)
        vm.run("systemctl", "reset-failed")


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "fake":
        return Fake()
    found: Side = request.getfixturevalue("real")
    return found


def until(side: Side, name: str, holds: Callable[[UnitState], bool]) -> UnitState:
    """The first state seen that holds; each change rings."""
    bell, deadline = Bell(), time.monotonic() + 10
    side.units.states.rings(bell)
    while True:
        bell.clear()
        state = side.units.state(name)
        if holds(state):
            return state
        assert time.monotonic() < deadline, state
        bell.wait(0.5)


def active(state: UnitState) -> bool:
    return state.active == "active"


def test_what_was_never_read_is_no_state(side: Side) -> None:
    """A unit has no LoadState before systemd told one; only watched ones are told."""
    assert side.units.state(WEB) == UnitState(WEB, load="")
    side.units.watch([WEB])
    assert until(side, WEB, lambda s: s.load == "loaded").active == "inactive"
    assert list(side.units.states.get()) == [WEB]
    side.units.watch([])
    until(side, WEB, lambda s: s.load == "")


def test_a_name_that_is_no_unit_harms_no_other(side: Side) -> None:
    """Neither a missing unit nor a text that can't be one."""
    side.units.watch(["no unit", "none.service", "x@.service", WEB])
    for name in ("no unit", "none.service", "x@.service"):
        assert until(side, name, lambda s: s.load != "").load == "not-found"
    until(side, WEB, lambda s: s.load == "loaded")


def test_start_restart_stop(side: Side) -> None:
    """Each life has a process and an InvocationID of its own."""
    side.units.watch([WEB])
    side.units.start(WEB)
    first = until(side, WEB, active)
    side.units.restart(WEB)
    second = until(side, WEB, lambda s: active(s) and s.invocation_id != first.invocation_id)
    assert first.main_pid != second.main_pid
    assert min(first.main_pid, second.main_pid) > 1
    side.units.stop(WEB)
    assert until(side, WEB, lambda s: s.active == "inactive").main_pid == 0


def test_a_death_shows_in_the_invocation(side: Side) -> None:
    """Whoever looks only after systemd restarted the unit sees that it is another life."""
    side.units.watch([WEB])
    side.units.start(WEB)
    before = until(side, WEB, active)
    side.kill(WEB)
    after = until(side, WEB, lambda s: active(s) and s.invocation_id != before.invocation_id)
    assert after.main_pid != before.main_pid


def test_a_unit_that_is_missing_cannot_be_started(side: Side) -> None:
    """A LocalFault with its name."""
    with pytest.raises(LocalFault, match=r"none\.service"):
        side.units.start("none.service")


def test_nothing_is_pending_in_a_running_system(side: Side) -> None:
    """Neither for a unit without a job nor for one that is not there."""
    assert [side.units.job_type(name) for name in (WEB, "none.service")] == ["", ""]
    assert side.units.system_state() == "running"


@pytest.mark.parametrize(("verb", "job"), [("stop", "stop"), ("restart", "restart")])
def test_the_job_that_ends_a_unit(real: Real, verb: str, job: str) -> None:
    """What a SIGTERM means can be asked while the job runs."""
    real.vm.run("systemctl", "start", SLOW)
    real.vm.run("systemctl", verb, "--no-block", SLOW)
    real.vm.wait(lambda: real.units.job_type(SLOW) == job, 0.9, f"the job {job}")


def test_a_start_waits_for_no_job(real: Real) -> None:
    """The stop takes a second, the call does not."""
    real.vm.run("systemctl", "start", SLOW)
    began = time.monotonic()
    real.units.stop(SLOW)
    assert time.monotonic() - began < 0.5


def test_a_death_is_seen_at_once(real: Real) -> None:
    """From the signal to the state 100 ms at most, ten of ten, restarts notwithstanding.

    It takes 5 ms on an idle machine. Of the 0.2 s until other proxies know, istiod's debounce
    takes the other 100.
    """
    real.units.watch([WEB])
    real.units.start(WEB)
    took = []
    for _ in range(10):
        life = until(real, WEB, active)
        victim = _on_host(real.vm.pid1, life.main_pid)
        began = time.monotonic()
        os.kill(victim, 9)
        until(real, WEB, lambda s: not active(s))
        took.append(time.monotonic() - began)
    print("kill -9 to state, ms:", *(f"{seconds * 1000:.1f}" for seconds in took))
    assert max(took) < 0.1


def _on_host(pid1: int, inside: int) -> int:
    namespace = Path(f"/proc/{pid1}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        try:
            same = entry.name.isdigit() and (entry / "ns/pid").readlink() == namespace
            status = (entry / "status").read_text() if same else ""
        except OSError:  # it has ended meanwhile
            continue
        if status and status.partition("NSpid:")[2].splitlines()[0].split()[-1] == str(inside):
            return int(entry.name)
    raise AssertionError(f"no process {inside}")


def test_a_unit_installed_later_is_followed(real: Real) -> None:
    """By daemon-reload, or by being started; and gone when it is removed."""
    real.units.watch(["late.service"])
    until(real, "late.service", lambda s: s.load == "not-found")
    real.vm.write("/run/systemd/system/late.service", UNITS[WEB])
    real.vm.run("systemctl", "start", "late.service")
    assert until(real, "late.service", lambda s: active(s) and s.load == "loaded").main_pid
    real.vm.sh("systemctl stop late; rm /run/systemd/system/late.service; systemctl daemon-reload")
    until(real, "late.service", lambda s: s.load == "not-found")


@pytest.mark.parametrize("event", ["daemon-reload", "daemon-reexec", "restart dbus"])
def test_it_follows_on_after(real: Real, event: str) -> None:
    """The last state stays through it, and the next death is seen."""
    real.units.watch([WEB])
    real.units.start(WEB)
    before = until(real, WEB, active)
    real.vm.run("systemctl", *event.split())
    assert real.units.state(WEB).invocation_id == before.invocation_id
    real.kill(WEB)
    until(real, WEB, lambda s: active(s) and s.invocation_id != before.invocation_id)


NOBODY = """\
import sys
from vmoor.adapters.units import SystemdUnits
from vmoor.errors import Forbidden
units = SystemdUnits()
assert units.system_state() == "running"
try:
    units.start("web.service")
except Forbidden as e:
    print(e, "|", e.remedy)
"""


def test_without_privilege_it_reads_and_may_not_start(real: Real) -> None:
    """With Debian's own Python and jeepney; polkit's refusal is Forbidden and says what to do."""
    agent = Path(f"/proc/{real.vm.pid1}/root/srv/agent/vmoor")
    shutil.copytree(Path(vmoor.__file__).parent, agent)
    told = real.vm.run("env", "PYTHONPATH=/srv/agent", "python3", "-c", NOBODY, user="nobody")
    assert told.stdout.startswith("cannot start web.service: polkit does not allow it | ")


def test_a_marker_is_nothing_to_systemd(real: Real) -> None:
    """A reload is told, the name with its escape is the manager's own, and nobody warns."""
    name, reloads = "marked\\x2dapp@a.service", Bell()
    folder = f"/proc/{real.vm.pid1}/root/run/systemd/system"
    until(real, WEB, lambda _: real.units.reloads.get() > 0)
    seen = real.units.reloads.get()
    real.units.reloads.rings(reloads)
    real.vm.write("/run/systemd/system/marked\\x2dapp@.service", UNITS[WEB])
    real.vm.run("mkdir", "-p", f"/run/systemd/system/{name}.d")
    real.vm.write(
        f"/run/systemd/system/{name}.d/vmoor.conf", "[Service]\nX-Vmoor-Service=web port=80\n"
    )
    real.vm.run("systemctl", "daemon-reload")
    assert reloads.wait(5)
    assert real.units.reloads.get() > seen
    found, problems = marker.services(name, markers.read([folder])[name])
    assert (found[0].unit, problems) == (name, ())
    real.units.watch([name])
    real.units.start(name)
    assert until(real, name, active).load == "loaded"
    real.vm.run("systemctl", "stop", name)
    assert "X-Vmoor" not in real.vm.journal()
