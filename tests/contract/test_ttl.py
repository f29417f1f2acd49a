"""Real sockets of applications that speak for themselves, in folders that root's program makes.

The agent's side runs as root here; what it may as user vmoor is tests/system/test_ttl.py's part.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from vmoor.adapters import pushing
from vmoor.adapters.pushes import Pushes
from vmoor.errors import Forbidden, LocalFault, Unavailable
from vmoor.model.service import TtlProbe
from vmoor.model.ttl import Heard
from vmoor.runtime.bell import Bell

from tests.unit.config.folders import good, write

AGENT = Path(__file__).parents[2] / "agent"
OWNER, GROUP, OTHER = "nobody", "games", "mail"  # Debian has them all
TTL_S = 30.0
AT_ONCE_S = 0.1
PATIENCE_S = 10.0
PROGRAM = """\
import sys
from pathlib import Path
from vmoor.ttlunit.folders import main
raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
"""
PUSH = """\
import os, sys
from vmoor.adapters import pushing
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(12345)
pushing.push(*sys.argv[2:])
"""


class Side:
    """The adapter in its thread, and a stand-in for systemd that runs root's program."""

    def __init__(self, top: Path) -> None:
        self.etc, self.folder = top / "etc", top / "ttl"
        self.etc.mkdir()
        self.folder.mkdir()
        self.folder.chmod(0o2755)
        self.asks = 0
        self.bell = Bell()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(top / "ask"))
        self.listener.listen()
        threading.Thread(target=self._answer, daemon=True).start()
        self.start()

    def _answer(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                self.asks += 1
                subprocess.run(
                    [sys.executable, "-c", PROGRAM, self.etc, self.folder, OWNER], stdout=link,
                    env={"PYTHONPATH": str(AGENT)}, umask=0o027, check=False,
                )  # fmt: skip

    def start(self, asked: str = "ask") -> None:
        self.stop = threading.Event()
        place = str(self.folder.parent / asked)
        self.pushes = Pushes(time.monotonic, str(self.folder), place)
        self.pushes.heard.rings(self.bell)
        self.thread = threading.Thread(target=self.pushes.run, args=(self.stop,))
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.pushes.wake()
        self.thread.join(5)
        assert not self.thread.is_alive()

    def configure(self, **groups: str) -> None:
        """The files alone; `listen` is what the agent makes of them."""
        services = {
            name: {"port": port, "checks": [{"ttl": "30s", **({"group": group} if group else {})}]}
            for port, (name, group) in enumerate(groups.items(), 8080)
        }
        write(self.etc, **{"10": good(services=services)})

    def listen(self, **groups: str) -> None:
        self.configure(**groups)
        self.watch(**groups)
        self.until(lambda: self.pushes._made == groups)

    def watch(self, **groups: str) -> None:
        self.pushes.watch(TtlProbe(name, TTL_S, group) for name, group in groups.items())

    def heard(self, name: str = "web") -> Heard:
        return self.pushes.heard.get().get(name, Heard())

    def path(self, name: str = "web") -> str:
        return str(self.folder / name / "socket")

    def push(self, message: str, name: str = "web") -> None:
        pushing.push(name, message, str(self.folder))

    def push_as(self, group: str, message: str = "pass") -> subprocess.CompletedProcess[str]:
        """By a user of this group alone."""
        gid = str(grp.getgrnam(group).gr_gid)
        return subprocess.run(
            [sys.executable, "-c", PUSH, gid, "web", message, self.folder], text=True,
            env={"PYTHONPATH": str(AGENT)}, capture_output=True, check=False,
        )  # fmt: skip

    def until(self, holds: Callable[[], bool], seconds: float = PATIENCE_S) -> float:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < seconds, self.pushes.heard.get()
            self.bell.wait(0.002)
            self.bell.clear()
        return time.monotonic() - began


@pytest.fixture
def side() -> Iterator[Side]:
    before = descriptors()
    # /tmp is everybody's, so nothing below it is trusted.
    with tempfile.TemporaryDirectory(dir="/run") as top:
        Path(top).chmod(0o755)
        side = Side(Path(top))
        try:
            yield side
        finally:
            side.end()
            side.listener.shutdown(socket.SHUT_RDWR)
            side.listener.close()
    assert descriptors() == before


def descriptors() -> int:
    """Sockets and selectors; the two ends of the wake pipe last as long as the agent."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link.readlink()).startswith(("socket", "anon")) for link in links)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: str) -> tuple[int, str]:
    seen = Path(path).stat()
    return stat.S_IMODE(seen.st_mode), grp.getgrgid(seen.st_gid).gr_name


def test_it_is_heard_at_once(side: Side) -> None:
    """From a shell's printf or our own command, each within 100 ms; the words come along."""
    side.listen(web=GROUP)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        plain.sendto(b"pass", side.path())
    side.until(lambda: side.heard().said == "pass", AT_ONCE_S)
    for said in ("warn disk is at 91%", "fail no space left", "pass"):
        side.push(said)
        took = side.until(lambda said=said: said.startswith(side.heard().said), AT_ONCE_S)
        print(f"heard after {took * 1000:.1f} ms")
    side.push("warn " + "x" * 5000)
    side.until(lambda: side.heard().words == "x" * 255 + "…", AT_ONCE_S)


def test_folder_and_socket_are_the_groups(side: Side) -> None:
    """Neither was given away by the agent, which could not; without a group they are its own."""
    side.listen(web=GROUP, db="")
    assert mode(str(side.folder / "web")) == (0o2750, GROUP)
    assert mode(side.path()) == (0o660, GROUP)
    assert (side.folder / "web").stat().st_uid == (side.folder / "db").stat().st_uid == 65534
    assert mode(str(side.folder / "db")) == (0o2750, "nogroup")


def test_only_the_group_may(side: Side) -> None:
    """Others are told which group it takes."""
    side.listen(web=GROUP)
    assert side.push_as(GROUP).returncode == 0
    side.until(lambda: side.heard().said == "pass")
    refused = side.push_as(OTHER, "fail")
    assert f"only root may, and members of group {GROUP}" in refused.stderr
    time.sleep(AT_ONCE_S)
    assert side.heard().said == "pass"


def test_garbage_is_told_and_ignored(side: Side, caplog: pytest.LogCaptureFixture) -> None:
    """One line for however much of it, and what comes after it is heard."""
    side.listen(web="")
    side.push("pass")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
        for message in (b"", b"psas", os.urandom(4096), b"\0" * 1024) * 5:
            plain.sendto(message, side.path())
    side.push("warn hot")
    side.until(lambda: side.heard().words == "hot")
    assert len(caplog.messages) == 1
    assert "is not pass, warn or fail" in caplog.text


def test_who_talks_without_end_is_read_a_hundred_times_a_second(side: Side) -> None:
    """However fast it is; and the last word counts."""
    side.listen(web="")
    changes = set()
    until = time.monotonic() + 1.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as plain:
        plain.connect(side.path())
        while time.monotonic() < until:
            for n, said in enumerate((b"pass", b"fail")):
                with suppress(BlockingIOError):
                    plain.send(b"%s %d" % (said, time.monotonic_ns() + n))
            changes.add(side.heard().words)
    assert 10 < len(changes) < 120
    side.until(lambda: side.heard().said != "")
    side.push("fail at last")
    side.until(lambda: side.heard().words == "at last")


def test_a_restarted_agent_is_at_the_same_place(side: Side) -> None:
    """Meanwhile pushers are told what to do; the path is there all the time."""
    side.listen(web="")
    side.push("pass")
    side.end()
    with pytest.raises(Unavailable, match="the agent does not listen") as caught:
        side.push("pass")
    assert "systemctl start vmoor" in caught.value.remedy
    side.start()
    side.watch(web="")
    side.until(lambda: side.pushes._made == {"web": ""})
    assert side.heard() == Heard()
    side.push("pass")
    side.until(lambda: side.heard().said == "pass")


def test_a_reload_changes_what_it_changes(side: Side) -> None:
    """One is gone with its folder, one has another group, one stays the very same socket."""
    side.listen(web=GROUP, db=GROUP, api="")
    side.push("pass", "api")
    side.until(lambda: side.heard("api").said == "pass")
    before = Path(side.path("api")).stat().st_ino
    side.listen(web=OTHER, api="")
    assert names(side.folder) == ["api", "web"]
    assert mode(side.path()) == (0o660, OTHER)
    assert side.push_as(OTHER).returncode == 0
    assert side.push_as(GROUP).returncode == 1
    assert Path(side.path("api")).stat().st_ino == before
    assert side.heard("api").said == "pass"
    with pytest.raises(LocalFault, match="db: it has no ttl check in force, those with one: api,"):
        side.push("pass", "db")


def test_nobody_is_asked_where_there_is_none(side: Side) -> None:
    """Without a ttl check it costs nothing; what a former one left is cleaned away."""
    side.watch()
    time.sleep(3 * AT_ONCE_S)
    assert side.asks == 0
    side.listen(web="")
    side.end()
    side.configure()
    side.start()
    side.watch()
    side.until(lambda: side.pushes._made == {})
    assert names(side.folder) == []
    assert side.asks == 2


def test_a_group_that_is_missing_is_told_and_waited_for(side: Side) -> None:
    """Until it is there root alone may push."""
    side.configure(web="no-such-group")
    side.watch(web="x")
    side.until(lambda: "there is no group no-such-group" in side.heard().trouble)
    side.push("pass")
    side.until(lambda: side.heard().said == "pass")
    assert side.push_as(GROUP).returncode == 1
    side.configure(web=GROUP)
    side.until(lambda: side.heard().trouble == "")
    assert side.heard().said == "pass"
    assert side.push_as(GROUP).returncode == 0
    assert mode(side.path()) == (0o660, GROUP)


def test_without_roots_part_what_is_there_is_used(side: Side) -> None:
    """The folders of before, and the words say which unit to start."""
    side.listen(web="")
    side.end()
    side.start(asked="nowhere")
    side.watch(web="", db="")
    side.until(lambda: "systemctl start vmoor-ttl.socket" in side.heard("db").trouble)
    assert side.heard().trouble == ""
    side.push("pass")
    side.until(lambda: side.heard().said == "pass")


def test_what_the_agent_puts_there_leads_root_nowhere(side: Side, tmp_path: Path) -> None:
    """Links and files in a folder that is the agent's are neither followed nor touched."""
    side.listen(web=GROUP)
    victim = tmp_path / "victim"
    victim.write_text("root's")
    before = victim.stat()
    Path(side.path()).unlink()
    Path(side.path()).symlink_to(victim)
    (side.folder / "web" / "more").symlink_to(tmp_path)
    side.configure()
    assert run_program(side) == "{}\n"
    assert victim.stat() == before
    assert names(side.folder) == ["web"]


def test_a_file_that_others_can_write_is_not_believed(side: Side) -> None:
    """Nor is anything taken away because of what it no longer says."""
    side.listen(web=GROUP)
    (side.etc / "conf.d" / "10.yaml").chmod(0o666)
    assert "10.yaml is writable by others than root" in run_program(side)
    assert names(side.folder) == ["web"]
    assert mode(side.path()) == (0o660, GROUP)


def test_names_and_groups_that_are_none_make_nothing(side: Side) -> None:
    """Whatever stands in root's files, no folder is made elsewhere."""
    write(
        side.etc, **{"10": "services: {../../x: {checks: [{ttl: 1}]}, web: [], 7: {checks: 1}}\n"}
    )
    assert run_program(side) == "{}\n"
    assert names(side.folder) == []


def run_program(side: Side) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, side.etc, side.folder, OWNER], capture_output=True,
        text=True, env={"PYTHONPATH": str(AGENT)}, check=True,
    )  # fmt: skip
    return done.stdout


def test_refusals_without_a_group(side: Side) -> None:
    """The configuration's key is named."""
    side.listen(web="")
    refused = side.push_as(GROUP)
    assert Forbidden.__name__ in refused.stderr
    assert "only root may" in refused.stderr
