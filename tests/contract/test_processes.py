"""Pid files of real processes: each death is told by the kernel, each change of a file seen."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vmoor
from vmoor.adapters import processes
from vmoor.adapters.processes import Processes
from vmoor.model.process import ProcessState
from vmoor.runtime.bell import Bell

from tests.rig import machine, network, root

AT_ONCE_S = 0.1
NEXT_LOOK_S = processes.LOOK_S + 0.5


class Side:
    """The adapter in its thread, and processes to watch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.followed = Processes()
        self.bell = Bell()
        self.followed.states.rings(self.bell)
        self.children: list[subprocess.Popen[bytes]] = []
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.followed.run, args=(self.stop,))
        self.thread.start()

    def process(self) -> subprocess.Popen[bytes]:
        self.children.append(subprocess.Popen(["/bin/sleep", "1000"]))
        return self.children[-1]

    def file(self, name: str, content: object) -> str:
        """Written in place, as most daemons do."""
        (self.folder / name).write_text(str(content))
        return str(self.folder / name)

    def state(self, path: str) -> ProcessState:
        return self.followed.states.get().get(path, ProcessState(words="not read"))

    def until(self, path: str, want: ProcessState, seconds: float) -> float:
        return self.when(lambda: self.state(path) == want, seconds)

    def when(self, holds: Callable[[], bool], seconds: float) -> float:
        """How long it took; each change rings."""
        began = time.monotonic()
        while True:
            self.bell.clear()
            if holds():
                return time.monotonic() - began
            left = began + seconds - time.monotonic()
            assert left > 0, self.followed.states.get()
            self.bell.wait(left)

    def close(self) -> None:
        self.stop.set()
        self.followed.wake()
        self.thread.join(5)
        for child in self.children:
            child.kill()
            child.wait()
        assert not self.thread.is_alive()


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    before = _pidfds()
    side = Side(tmp_path)
    try:
        yield side
    finally:
        side.close()
    assert _pidfds() == before


def _pidfds() -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum("pidfd" in str(link.readlink()) for link in links)


def test_a_death_is_seen_at_once(side: Side) -> None:
    """From SIGKILL to the state 100 ms at most, ten of ten, before anyone has reaped it."""
    for i in range(10):
        child = side.process()
        path = side.file(f"{i}.pid", f"{child.pid}\n")
        side.followed.watch([path])
        side.until(path, ProcessState(child.pid, alive=True), AT_ONCE_S)
        child.kill()
        took = side.until(path, ProcessState(child.pid), AT_ONCE_S)
        print(f"seen after {took * 1000:.1f} ms")


def test_a_restart_is_seen_at_the_next_look(side: Side) -> None:
    """With the new pid in the file, written in place or renamed over it."""
    first, second, third = (side.process() for _ in range(3))
    path = side.file("web.pid", first.pid)
    side.followed.watch([path])
    side.until(path, ProcessState(first.pid, alive=True), AT_ONCE_S)
    first.kill()
    side.until(path, ProcessState(first.pid), AT_ONCE_S)
    side.file("web.pid", second.pid)
    side.until(path, ProcessState(second.pid, alive=True), NEXT_LOOK_S)
    Path(side.file("new", third.pid)).rename(path)  # the second one lives on
    side.until(path, ProcessState(third.pid, alive=True), NEXT_LOOK_S)
    assert _pidfds() == 1


def test_a_new_pid_that_stands_there_before_the_death(side: Side) -> None:
    """The file is read again at the death itself, not at the next look."""
    first, second = side.process(), side.process()
    path = side.file("web.pid", first.pid)
    side.followed.watch([path])
    side.until(path, ProcessState(first.pid, alive=True), AT_ONCE_S)
    side.file("web.pid", second.pid)
    first.kill()
    side.until(path, ProcessState(second.pid, alive=True), AT_ONCE_S)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("web", "is not one pid"),
        ("", "is not one pid"),
        ("1" * (1 << 22), "is not one pid"),
        (f"1{' ' * 100}", "is not one pid"),
        (None, "no such file or directory"),
    ],
    ids=["garbage", "empty", "huge", "padded", "missing"],
)
def test_a_file_without_a_pid(side: Side, content: object, words: str) -> None:
    """Garbage, nothing, too much or no file fail in words, until a pid stands there."""
    path = str(side.folder / "web.pid")
    if content is not None:
        side.file("web.pid", content)
    side.followed.watch([path])
    side.until(path, ProcessState(words=words), AT_ONCE_S)
    child = side.process()
    side.file("web.pid", child.pid)
    side.until(path, ProcessState(child.pid, alive=True), NEXT_LOOK_S)
    Path(path).unlink()
    side.until(path, ProcessState(words="no such file or directory"), NEXT_LOOK_S)


def test_what_is_no_regular_file_blocks_nothing(side: Side) -> None:
    """A pipe, a folder, a device and an impossible path harm no other."""
    pipe = str(side.folder / "pipe")
    os.mkfifo(pipe)
    child = side.process()
    good = side.file("web.pid", child.pid)
    bad = [pipe, str(side.folder), "/dev/zero", "/run/\0", "/run/\ud800"]
    side.followed.watch([*bad, good])
    side.until(good, ProcessState(child.pid, alive=True), AT_ONCE_S)
    assert all(side.state(path).pid == 0 and side.state(path).words for path in bad)


def test_a_pid_that_nobody_has(side: Side) -> None:
    """A stale file and a zombie are dead from the first look, and cost nothing from then on."""
    gone, zombie = side.process(), side.process()
    gone.kill()
    gone.wait()
    zombie.kill()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    stale, undead = side.file("stale", gone.pid), side.file("zombie", zombie.pid)
    side.followed.watch([stale, undead])
    side.until(stale, ProcessState(gone.pid), AT_ONCE_S)
    assert side.state(undead) == ProcessState(zombie.pid)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.05


def test_200_files(side: Side) -> None:
    """All are followed; each death is seen at once, and a second takes 10 ms of CPU at most."""
    children = [side.process() for _ in range(200)]
    paths = {side.file(f"{i}.pid", child.pid): child for i, child in enumerate(children)}
    side.followed.watch(list(paths))
    side.when(lambda: len(side.followed.states.get()) == len(paths), 1.0)
    assert all(state.alive for state in side.followed.states.get().values())
    before = time.process_time()
    time.sleep(3)
    cpu = (time.process_time() - before) / 3
    print(f"{cpu * 1000:.1f} ms of CPU a second")
    assert cpu < 0.01
    for child in children:
        child.kill()
    side.when(lambda: not any(s.alive for s in side.followed.states.get().values()), 0.5)
    side.followed.watch([])
    side.when(lambda: not side.followed.states.get(), AT_ONCE_S)


def test_more_files_than_descriptors_allow(side: Side) -> None:
    """Those beyond the limit say so; the others are followed, with descriptors left."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert min(soft, 1024) - processes.MOST >= 200
    child = side.process()
    paths = [side.file(f"{i:04}.pid", child.pid) for i in range(processes.MOST + 1)]
    side.followed.watch(paths)
    side.when(lambda: len(side.followed.states.get()) == len(paths), 2.0)
    assert [side.state(path).alive for path in paths] == [True] * processes.MOST + [False]
    assert "more than 500" in side.state(paths[-1]).words
    child.kill()
    side.until(paths[0], ProcessState(child.pid), 0.5)


def test_without_work_there_are_no_wake_ups(side: Side) -> None:
    """With no file to watch the thread sleeps for good."""
    side.when(lambda: _switches(side.thread) != "0", 1.0)
    before = _switches(side.thread)
    time.sleep(2.5)
    assert _switches(side.thread) == before


def _switches(thread: threading.Thread) -> str:
    text = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return next(line.split()[1] for line in text.splitlines() if line.startswith("voluntary"))


WATCH = """\
import sys, threading, time
from vmoor.adapters.processes import Processes
from vmoor.runtime.bell import Bell
import os
followed, bell, pid = Processes(), Bell(), int(sys.argv[2])
assert os.getuid() == 65534 and not os.path.exists(f"/proc/{pid}"), "it can see the process"
followed.states.rings(bell)
threading.Thread(target=followed.run, args=(threading.Event(),), daemon=True).start()
followed.watch([sys.argv[1]])
for alive in (True, False):
    bell.wait(5)
    bell.clear()
    assert followed.states.get()[sys.argv[1]].alive is alive
    print(time.time(), flush=True)
"""
SANDBOX = Path(__file__).parents[2] / "packaging/systemd/vmoor.service"
# What confines; the rest of the section needs the package, or is about starts and stops.
CONFINES = (
    "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "Private", "Protect",
    "Device", "Restrict", "Lock", "MemoryDeny", "RemoveIPC", "KeyringMode", "SystemCall", "UMask",
)  # fmt: skip


def test_in_the_agents_sandbox_on_a_strangers_process(tmp_path: Path) -> None:
    """As the packaged unit confines it: it does not see root's process, and sees it die."""
    lines = SANDBOX.read_text().splitlines()
    properties = [line for line in lines if line.startswith(CONFINES)]
    assert "ProtectProc=invisible" in properties
    with network.Network() as net, machine.Machine(
        net, "pids", "198.18.0.42", disk=root.debian(), workdir=tmp_path, packages=tmp_path,
        user_data="#cloud-config\n{}\n",
    ) as vm:  # fmt: skip
        vm.boot()
        vm.wait_cloud_init()
        shutil.copytree(Path(vmoor.__file__).parent, Path(f"/proc/{vm.pid1}/root/srv/agent/vmoor"))
        vm.write("/srv/watch.py", WATCH)
        sandbox = " ".join(f"-p '{each}'" for each in properties)
        told = vm.sh(
            "sleep 1000 & echo $! > /run/web.pid; (sleep 3; date +%s.%N; kill -9 $!) & "
            f"systemd-run --pipe --wait -q -p User=nobody {sandbox} -E PYTHONPATH=/srv/agent "
            "python3 /srv/watch.py /run/web.pid $(cat /run/web.pid)"
        )
    _, killed, died = sorted(float(line) for line in told.split())
    print(f"seen after {(died - killed) * 1000:.1f} ms")
    assert died - killed < AT_ONCE_S
