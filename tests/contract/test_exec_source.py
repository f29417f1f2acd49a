"""sources.exec: a real runner, the agent's own client, and the child that judges."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from vmoor.adapters import documents, execs, run
from vmoor.config.settings import ExecSource
from vmoor.errors import Unavailable
from vmoor.ports import Look

from tests.contract.exec_runner import AGENT, Runner, running
from tests.unit.config.folders import good, write

ONE = {"services": {"web": {"port": 8080}}}


class Source:
    """A command that is a shell script, and what the agent makes of it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def configure(self, *command: str, timeout: float = 5.0) -> ExecSource:
        given = {"command": list(command), "timeout": f"{timeout:g}s"}
        write(self._runner.folder, **{"10": good(sources={"exec": given})})
        return ExecSource(command, 30.0, timeout)

    def look(self, script: str, timeout: float = 5.0) -> Look:
        source = self.configure("/bin/sh", "-c", script, timeout=timeout)
        return documents.printed(source, self._runner.path)

    def fails(self, script: str, timeout: float = 5.0) -> str:
        """Why."""
        with pytest.raises(Unavailable) as e:
            self.look(script, timeout)
        assert e.value.message.startswith("cannot use /bin/sh: ")
        assert e.value.remedy.startswith("see what it does: runuser -u vmoor-exec -- /bin/sh -c ")
        return e.value.message.partition(": ")[2]

    def prints(self, text: str) -> Look:
        return self.look(f"printf %s {shlex.quote(text)}")


@pytest.fixture(autouse=True)
def _from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is isolated (-I): it would look for vmoor where the package has it."""
    isolated = run.Running

    def begin(argv: Sequence[str]) -> run.Running:
        return isolated([a for a in argv if a != "-I"], {"PYTHONPATH": str(AGENT)})

    monkeypatch.setattr(run, "Running", begin)


@pytest.fixture(scope="module")
def source() -> Iterator[Source]:
    with running() as (runner, process):
        yield Source(runner)
        assert process.poll() is None, "one of the commands ended the runner"


def test_what_it_prints_is_judged_as_a_file_is(source: Source) -> None:
    """By the same rules; what it says to stderr is no part of it."""
    look = source.look(f"echo noise >&2; echo '{json.dumps(ONE)}'")
    read = look.judge()
    assert (read.document, read.problems) == (ONE, ())
    assert look.remedy.endswith(" | vmoor check --services-file -")


def test_the_same_output_is_the_same_version(source: Source) -> None:
    """Byte by byte: nothing is judged anew then."""
    first, same = source.prints(json.dumps(ONE)), source.prints(json.dumps(ONE))
    assert first.version == same.version
    assert first.version != source.prints(json.dumps(ONE) + " ").version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ":1: not JSON"),
        ('{"services": {"web": {"po', ":1: not JSON"),
        ("<html></html>", ":1: not JSON"),
        ('{"services": {"web": {"port": NaN}}}', "NaN is no JSON"),
        ('{"services": {\n"a": {"port": 1},\n"a": {"port": 2}}}', ":3: services.a: stands here"),
        ('{"services": {"a": {"port": "80"}}}', ":1: services.a.port: '80' is text"),
        ('{"services": [1]}', ":1: services: a list is not a mapping"),
        pytest.param("[" * 5000, ": nested too deep", id="nested"),
        ('{"services": {"a": {"port": 1, "checks": [{"exec": ["/bin/true"]}]}}}', "exec is for"),
        ('{"services": {"a": {"labels": {"b": "\\udcff"}}}}', "a half of a character"),
    ],
)
def test_what_is_wrong_is_told_with_the_line(source: Source, text: str, words: str) -> None:
    """And with whose output it is."""
    (first, *_) = source.prints(text).judge().problems
    assert first.startswith("output of /bin/sh:")
    assert words in first


def test_bytes_that_are_no_text_stay_wrong(source: Source) -> None:
    """Not made fit on the way through the runner's JSON."""
    for octal in ("\\377", "\\355\\240\\200"):
        script = f"""printf '{{"services": {{"a": {{"port": 1, "protocol": "{octal}"}}}}}}'"""
        (problem,) = source.look(script).judge().problems
        assert "not JSON" in problem


def test_a_whole_mebibyte_passes_and_no_more(source: Source, tmp_path: Path) -> None:
    """Whatever it is made of: a byte may be six in the runner's answer."""
    text = tmp_path / "text"
    for filler in (b" ", b"\0", b"\xff"):
        text.write_bytes(filler * (1 << 20))
        assert execs.printed(source.configure("/bin/cat", str(text)), source._runner.path)[:2]
    text.write_bytes(b" " * (1 << 20) + b" ")
    assert source.fails(f"cat {text}") == "it prints more than 1 MiB"
    assert source.fails("head -c 10000000 /dev/zero") == "it prints more than 1 MiB"


def test_a_thousand_services(source: Source) -> None:
    """In a moment."""
    many = {"services": {f"s{i:03}": {"port": i + 1} for i in range(1000)}}
    script = (
        "import json;print(json.dumps({'services':{f's{i:03}':{'port':i+1} for i in range(%d)}}))"
    )
    for count in (1000, 1001):
        argv = f"{sys.executable} -c {shlex.quote(script % count)}"
        began = time.monotonic()
        read = source.look(argv).judge()
        assert time.monotonic() - began < 5
        if count == 1000:
            assert read.document == many
    assert "1001 services, at most 1000 count" in read.problems[0]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no database >&2; echo '{}'; exit 3", "exit 3: no database"),
        ("exit 1", "exit 1"),
        ("kill -9 $$", "exit 137"),
        ("printf 'bad \\033[31m\\377' >&2; exit 1", "exit 1: bad ?[31m?"),
    ],
)
def test_any_exit_code_but_0_fails(source: Source, script: str, words: str) -> None:
    """With the first line of stderr; what it printed does not count."""
    assert source.fails(script) == words


def test_it_is_ended_in_time_with_all_that_it_started(source: Source, tmp_path: Path) -> None:
    """Also when it prints for ever, or its child holds the pipe."""
    began = time.monotonic()
    assert source.fails("trap '' TERM; sleep 60 & sleep 60", 0.5) == "timed out after 0.5s"
    assert source.fails("yes", 0.5) == "timed out after 0.5s"
    assert time.monotonic() - began < 4
    (tmp_path / "out").write_text(json.dumps(ONE))
    look = source.look(f"setsid sleep 60 & cat {tmp_path}/out", 5)
    assert look.judge().document == ONE
    assert time.monotonic() - began < 8


def test_only_the_configured_command_runs(source: Source, tmp_path: Path) -> None:
    """Nothing of the request is looked at; without a command nothing runs."""
    source.prints("{}")
    evil = {"source": True, "command": ["/usr/bin/touch", str(tmp_path / "evil")]}
    assert set(source._runner.ask(json.dumps(evil).encode() + b"\n")) == {"error"}
    with running() as (fresh, _):
        write(fresh.folder, **{"10": good()})
        with pytest.raises(Unavailable, match="cannot run /bin/a: no sources.exec"):
            execs.printed(ExecSource(("/bin/a",), 30.0, 1.0), fresh.path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_socket_the_words_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot run /bin/a: vmoor-exec.socket does not") as e:
        execs.printed(ExecSource(("/bin/a",), 30.0, 1.0), str(tmp_path / "none"))
    assert e.value.remedy == "systemctl start vmoor-exec.socket"


def test_beside_a_broken_configuration_the_command_still_runs() -> None:
    """A runner that starts then, after an upgrade say, has only the files."""
    with running() as (fresh, _):
        given = Source(fresh).configure("/bin/echo", "{}")
        write(fresh.folder, **{"20": "services: {web: {prot: 1}}\n", "30": "{\n"})
        assert execs.printed(given, fresh.path) == b"{}\n"
