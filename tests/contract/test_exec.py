"""The runner of exec checks as a real process, asked by the agent's own client.

It runs as root here and as vmoor-exec on a VM: who it is, is tests/system/test_exec.py's part.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from vmoor.adapters import execs
from vmoor.execunit import keeper
from vmoor.model.health import Probe
from vmoor.model.service import ExecProbe

from tests.contract.exec_runner import PATIENCE, TIMEOUT, Runner, running
from tests.unit.config.folders import good, write


@pytest.fixture(scope="module")
def exec_runner() -> Iterator[Runner]:
    with running() as (made, process):
        yield made
        assert process.poll() is None, "one of the requests ended the runner"


def until(true: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < PATIENCE, f"no {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# What a look says


def test_exit_code_0_passes(exec_runner: Runner) -> None:
    """With the first line of what the command said, or how long it took."""
    assert exec_runner.sh("echo fine; echo more >&2") == Probe(passed=True, words="fine")
    silent = exec_runner.sh("exit 0")
    assert silent.passed
    assert silent.words.startswith("exit 0 in ")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'disk\033[31m is full' >&2; exit 3", "exit 3: disk?[31m is full"),
        ("exit 1", "exit 1"),
        ("kill -9 $$", "exit 137"),
    ],
)
def test_any_other_end_fails(exec_runner: Runner, script: str, words: str) -> None:
    """With the code, and what it said made fit for a message; a signal counts as shells do."""
    assert exec_runner.sh(script) == Probe(passed=False, words=words)


def test_a_program_that_is_not_there(exec_runner: Runner) -> None:
    exec_runner.configure(["/nowhere/check"])
    found = exec_runner.look()
    assert not found.passed
    assert "No such file or directory: '/nowhere/check'" in found.words


def test_no_shell_and_a_bare_environment(exec_runner: Runner) -> None:
    """Arguments are what they are; nothing of the runner's own environment or files is passed."""
    exec_runner.configure(["/bin/echo", "$HOME", "a b", ";"], ["/usr/bin/env"])
    assert exec_runner.look().words == "$HOME a b ;"
    answer = exec_runner.ask(b'{"service": "web", "check": 1}\n')
    names = {line.partition("=")[0] for line in answer["output"].splitlines()}
    assert names == {"PATH", "LANG"}
    assert exec_runner.sh('echo "$(pwd) $(readlink /proc/self/fd/0)"').words == "/ /dev/null"
    exec_runner.configure(["/bin/ls", "/proc/self/fd"])
    answer = exec_runner.ask(b'{"service": "web", "check": 0}\n')
    assert answer["output"].split() == ["0", "1", "2", "3"]  # the last is ls's own


# How a look ends


def test_the_time_limit(exec_runner: Runner) -> None:
    """The check's own timeout, whatever the command does with signals."""
    began = time.monotonic()
    found = exec_runner.sh("trap '' TERM HUP INT; sleep 60 & sleep 60")
    assert found == Probe(passed=False, words="timed out after 0.5s")
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + execs.GRACE_S


DAEMON = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        for name in ("one", "two"):
            if os.fork() == 0:
                open(sys.argv[1] + "/" + name, "w").write(str(os.getpid()))
                time.sleep(60)
        time.sleep(60)
    os._exit(0)
os.wait()
while not all(os.path.exists(sys.argv[1] + "/" + n) for n in ("one", "two")): time.sleep(0.01)
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(("stay", "passed"), [("0", True), ("60", False)])
def test_nothing_outlives_its_look(
    exec_runner: Runner, tmp_path: Path, stay: str, passed: bool
) -> None:
    """Not what forked twice into sessions of its own either, whether the check passed or hung;
    it holds the pipe of the output, and the look does not wait for that."""
    argv = [sys.executable, "-c", DAEMON, str(tmp_path), stay]
    exec_runner.configure(argv, timeout="2s")
    assert exec_runner.look(timeout=2).passed is passed
    pids = [int((tmp_path / name).read_text()) for name in ("one", "two")]
    assert [pid for pid in pids if alive(pid)] == []


def test_endless_output(exec_runner: Runner) -> None:
    """Read and dropped: the command is not held up by it, and no memory grows."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    command = "head -c 200000000 /dev/zero; echo; echo end"
    exec_runner.configure(["/bin/sh", "-c", command], ["/usr/bin/yes"], timeout="5s")
    answer = exec_runner.ask(b'{"service": "web", "check": 0}\n')
    assert (answer["code"], answer["timed_out"]) == (0, False)
    assert answer["output"] == "\0" * 4096
    peak = Path(f"/proc/{exec_runner.pid}/status").read_text()
    assert int(peak.partition("VmHWM:")[2].split()[0]) < 100_000, peak
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 100_000)
    # The client reads the longest answer that there can be.
    assert exec_runner.look(timeout=5).passed
    exec_runner.configure(["/usr/bin/yes"])
    assert exec_runner.look().words == "timed out after 0.5s"


def test_a_writer_that_is_left_does_not_hold_the_look(exec_runner: Runner) -> None:
    """The command ended; what it started writes on for ever."""
    assert exec_runner.sh("yes & yes & yes & yes & sleep 0.1; exit 0") == Probe(
        passed=True, words="y"
    )


# What may be asked


@pytest.mark.parametrize(
    "request_line",
    [
        b"\n",
        b"GET / HTTP/1.1\n",
        b"[" * 4000 + b"\n",
        b'["web", 0]\n',
        b'{"service": "web", "check": true}\n',
        b'{"service": ["web"], "check": 0}\n',
        b'{"service": "web", "check": 0, "argv": ["/bin/true"]' + b" " * 5000 + b"}\n",
        b"\xff\xfe\n",
    ],
)
def test_a_request_that_is_none(exec_runner: Runner, request_line: bytes) -> None:
    assert set(exec_runner.ask(request_line)) == {"error"}


def test_who_says_nothing_is_let_go(exec_runner: Runner) -> None:
    """Half a request holds a keeper for two seconds, then it is told."""
    began = time.monotonic()
    assert exec_runner.ask(b'{"service"') == {"error": "timed out"}
    assert time.monotonic() - began < keeper.REQUEST_S + 1


def test_only_what_is_configured_runs(tmp_path: Path) -> None:
    """A command in the request is not looked at, nor a check that is none or another kind."""
    evil = ["/usr/bin/touch", str(tmp_path / "evil")]
    checks: list[Any] = [{"tcp": 1}, {"exec": ["/bin/true"]}]
    line = {"service": "web", "check": 1, "argv": evil, "exec": evil}
    with running() as (made, _):
        write(made.folder, **{"10": good(services={"web": {"port": 1, "checks": checks}})})
        assert made.ask(json.dumps(line).encode() + b"\n")["code"] == 0
        for check in (0, 2, -1):
            words = f"services.web.checks[{check}] is no exec check"
            assert made.look(check) == Probe(passed=False, words=words)
    assert list(tmp_path.iterdir()) == []


def test_an_edit_before_the_reload_fails_no_look(exec_runner: Runner) -> None:
    """The agent still asks for the check that was taken out, and gets what it meant."""
    exec_runner.configure(["/bin/true"], ["/bin/echo", "second"])
    assert exec_runner.look(1).words == "second"
    exec_runner.configure(["/bin/true"])
    assert exec_runner.look(1).words == "second"


def test_a_change_of_the_files_counts_at_once(exec_runner: Runner) -> None:
    """And when they are broken, what was accepted last runs on, as in the agent."""
    assert exec_runner.sh("echo old").words == "old"
    assert exec_runner.sh("echo new").words == "new"
    write(exec_runner.folder, **{"20": "services: {web: {prot: 1}}\n"})
    try:
        assert exec_runner.look().words == "new"
        told = exec_runner.look(9)
        assert not told.passed
        assert "20.yaml:1: services.web: unknown key 'prot'" in told.words
    finally:
        (exec_runner.folder / "conf.d/20.yaml").unlink()


@pytest.mark.parametrize("spoilt", ["conf.d/10.yaml", "conf.d"])
def test_what_others_than_root_could_have_written_does_not_run(
    exec_runner: Runner, spoilt: str
) -> None:
    """A file, or the folder it is in; it runs again when that is mended."""
    assert exec_runner.sh("echo fine").passed
    path = exec_runner.folder / spoilt
    mode = path.stat().st_mode
    for spoil in (lambda: path.chmod(0o777), lambda: os.chown(path, 65534, -1)):
        spoil()
        found = exec_runner.look()
        assert not found.passed
        assert str(path) in found.words
        os.chown(path, 0, -1)
        path.chmod(mode)
        assert exec_runner.look().passed


# How much at once, and how it ends


def test_sixteen_at_once_and_the_rest_waits(exec_runner: Runner, tmp_path: Path) -> None:
    """Never more commands than that run; those that wait are answered, too."""
    script = f"touch {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.8; rm {tmp_path}/$$"
    exec_runner.configure(["/bin/sh", "-c", script], timeout="3s")
    found: list[Probe] = []

    def look() -> None:
        found.append(exec_runner.look(timeout=10))

    threads = [threading.Thread(target=look) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [probe for probe in found if not probe.passed] == []
    assert len(found) == 20
    counts = [int(probe.words) for probe in found]
    assert 8 < max(counts) <= 16, counts


def test_it_ends_when_nothing_is_asked() -> None:
    """The socket starts the next one; a command that runs is not idleness."""
    with running(idle=0.2) as (made, process):
        assert made.sh("sleep 0.4; echo fine").words == "fine"
        assert process.wait(PATIENCE) == 0
        assert made.look().words == "no answer of vmoor-exec after 1.5s"


def test_without_the_socket_the_words_say_what_to_do(tmp_path: Path) -> None:
    """Also when a stale one is left that nobody listens on."""
    path = str(tmp_path / "socket")
    words = "vmoor-exec.socket does not run: systemctl start vmoor-exec.socket"
    assert execs.look(ExecProbe("web", 0), 1, path) == Probe(passed=False, words=words)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    assert execs.look(ExecProbe("web", 0), 1, path) == Probe(passed=False, words=words)


def test_an_answer_that_never_ends_is_bounded(tmp_path: Path) -> None:
    """In length and, dripping, in time."""
    for piece, words in ((b"x" * 65536, "too long"), (b"x", "after 1.1s")):
        path = str(tmp_path / f"{len(piece)}")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()

            def drip(piece: bytes = piece, listener: socket.socket = listener) -> None:
                link, _ = listener.accept()
                with link:
                    try:
                        while True:
                            link.sendall(piece)
                            time.sleep(0.05)
                    except OSError:
                        return

            thread = threading.Thread(target=drip)
            thread.start()
            found = execs.look(ExecProbe("web", 0), 0.1, path)
            thread.join(PATIENCE)
        assert not found.passed
        assert words in found.words


def test_a_runner_that_starts_beside_a_broken_configuration_knows_its_commands() -> None:
    """The agent runs on what it accepted: after an upgrade its checks must not fail for that."""
    with running() as (made, _):
        made.configure(["/bin/echo", "fine"])
        write(made.folder, **{"20": "services: {web: {prot: 1, checks: 7}, x: 3}\n", "30": "{\n"})
        (made.folder / "conf.d/20.yaml").write_text("services: {web: {prot: 1}}\n")
        assert made.look().words == "fine"


def test_a_runner_that_is_replaced_is_asked_again(tmp_path: Path) -> None:
    """An upgrade ends it amid a look; its socket, and who starts the next, stay."""
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            listener.accept()[0].close()
            link, _ = listener.accept()
            with link:
                link.recv(4096)
                link.sendall(b'{"code": 0, "output": "back"}\n')

        thread = threading.Thread(target=serve)
        thread.start()
        found = execs.look(ExecProbe("web", 0), 1, path)
        thread.join(PATIENCE)
    assert found == Probe(passed=True, words="back")
    assert found.words == "back"


# Hooks


def test_a_hook_has_what_it_is_about_in_its_environment(exec_runner: Runner) -> None:
    """The VM and the reason, beside what every command has; the command is root's."""
    script = "echo $VMOOR_VM, $VMOOR_REASON, $LANG, $SECRET"
    write(exec_runner.folder, **{"10": good(hooks={"drained": ["/bin/sh", "-c", script]})})
    probe = execs.hook("drained", "web-1", "AWS spot notice", exec_runner.path)
    assert probe == Probe(passed=True, words="web-1, AWS spot notice, C.UTF-8,")


def test_a_hook_that_is_not_configured_does_not_run(exec_runner: Runner) -> None:
    """Nor anything else that whoever asks might bring."""
    write(exec_runner.folder, **{"10": good(hooks={"moored": ["/bin/false"]})})
    assert execs.hook("moored", "web-1", "", exec_runner.path).words == "exit 1"
    assert "no hooks.left" in execs.hook("left", "web-1", "", exec_runner.path).words


@pytest.mark.parametrize("text", ["a\nb", "x" * 129, "\u00e9"])
def test_what_a_hook_is_about_is_one_short_line(exec_runner: Runner, text: str) -> None:
    """Nothing else gets into an environment."""
    write(exec_runner.folder, **{"10": good(hooks={"moored": ["/bin/true"]})})
    probe = execs.hook("moored", "web-1", text, exec_runner.path)
    assert not probe.passed
    assert "a line of at most 128 characters" in probe.words
