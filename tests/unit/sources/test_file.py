"""A file of services: the configuration's own rules, and every way to be wrong is told."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from vmoor.config import services
from vmoor.errors import Misconfigured


def wrong(path: Path) -> str:
    with pytest.raises(Misconfigured) as e:
        services.read(str(path))
    return "\n".join(e.value.problems)


def test_it_is_what_services_is_in_the_configuration(tmp_path: Path) -> None:
    """As JSON libraries write it, also with tabs."""
    given = {"services": {"web": {"port": 80, "checks": [{"http": "/h"}], "labels": {"a": "b"}}}}
    for indent in (None, "\t"):
        (tmp_path / "s").write_text(json.dumps(given, indent=indent))
        assert services.read(str(tmp_path / "s")) == given


def test_values_are_those_of_json(tmp_path: Path) -> None:
    """A character that JSON libraries write as two halves is one."""
    given = {
        "services": {"a": {"port": 1, "checks": [{"http": {"path": "/", "body": "\U0001f600"}}]}}
    }
    (tmp_path / "s").write_text(json.dumps(given))
    assert services.read(str(tmp_path / "s")) == given


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"services": {"web": {"po', ":1: not JSON (is it whole?)"),
        ("", ":1: not JSON"),
        ('{"services": {"web": {"port": NaN}}}', ": not JSON (is it whole?): NaN"),
        ("services: {web: {port: 80}}", ":1: not JSON"),
        ('{"services": {\n"a": {"port": 1},\n"a": {"port": 2}}}', ":3: services.a: stands here"),
        ('{"services": {\n"a": {"port": 1},\n"b": {"port": 1}}}', ":3: services.b.port: 1 is al"),
        ('{"services": {\n"a": {"port": 0}}}', ":2: services.a.port: 0 is not a port"),
        ('{"services": {\n"a": {"port": 15001}}}', ":2: services.a.port: 15001 is a port of the"),
        ('{"services": {\n"a": {}}}', ":2: services.a: needs port or ports"),
        ('{"services": {"a": {"prot": 1}}}', "unknown key 'prot'"),
        ('{"services": []}', ":1: services: a list is not a mapping"),
        ('{"services": {}, "vault": {}}', "must be one mapping 'services', has vault"),
        ("{}", "must be one mapping 'services', has nothing"),
        ("[]", ":1: not a mapping"),
        ("[" * 100_000, ": nested too deep"),
        ('{"services": {"a": {"labels": {"b": "\\ud800"}}}}', "holds a half of a character"),
        ('{"services": {"a": {"port": 1e3}}}', ":1: services.a.port: 1e3 is not a port"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    """A problem begins with the file's name."""
    (tmp_path / "s").write_text(text)
    told = wrong(tmp_path / "s")
    assert told.startswith(str(tmp_path / "s"))
    assert words in told


@pytest.mark.parametrize(
    "check", [{"exec": ["/bin/true"]}, {"file": "/run/x"}, {"ttl": "30s", "group": "app"}]
)
def test_its_writer_gets_no_right_of_others(tmp_path: Path, check: dict[str, object]) -> None:
    """What the agent, vmoor-exec or root would do for it is for root's configuration only."""
    given = {"services": {"a": {"port": 1, "checks": [check]}}}
    (tmp_path / "s").write_text(json.dumps(given))
    words = f"{next(iter(check))} is for the configuration's services only"
    assert wrong(tmp_path / "s").endswith(words)


def test_its_size_and_kind_are_bounded(tmp_path: Path) -> None:
    """10 MB, bytes that are no text, no file, a pipe that nobody writes to."""
    (tmp_path / "s").write_bytes(b"{" + b" " * 10_000_000)
    assert wrong(tmp_path / "s").endswith("s: larger than 1 MiB")
    for content in (b"\xff\xfe\xff", '{"services": {}}'.encode("utf-16")):
        (tmp_path / "s").write_bytes(content)
        assert "not JSON" in wrong(tmp_path / "s")
    assert "cannot be read: no such file" in wrong(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert "pipe: is not a file" in wrong(tmp_path / "pipe")


def test_child_process_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a document or with problems, by exit status 0 or 78."""
    path = tmp_path / "s"
    path.write_text('{"services": {}}')
    assert services.main([str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"document": {"services": {}}}
    path.unlink()
    assert services.main([str(path)]) == 78
    (words,) = json.loads(capsys.readouterr().out)["problems"]
    assert words == f"{path}: cannot be read: no such file or directory"


def test_child_process_reads_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And calls it as it is told."""
    for text, code, words in (
        ('{"services": {}}', 0, '"document"'),
        ("{", 78, "output of /bin/list:1: not JSON"),
    ):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert services.main(["-", "output of /bin/list"]) == code
        assert words in capsys.readouterr().out
