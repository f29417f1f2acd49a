# ruff: noqa: E501 - messages stand in one piece, as they are told

from __future__ import annotations

import json
from pathlib import Path
from typing import Union

import pytest
from click.testing import CliRunner, Result
from vmoor.cli.check import check

from tests.unit.config.folders import GOOD, good, write

SOURCES = {
    "systemd": ({}, "units *.service"),
    "consul": ({}, "http://127.0.0.1:8500, tag vmoor"),
    "file": ({"path": "/run/s.json"}, "/run/s.json"),
    "exec": ({"command": ["/bin/a", "b c"], "period": "1m"}, "/bin/a 'b c', every 60s"),
    "sockets": ({"allow": {"81": "db", "82": {"name": "api"}}}, "ports 81 db, 82 api"),
}


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(check, ["--config-dir", str(root), *arguments])


def document(text: Union[str, bytes], *arguments: str) -> Result:
    return CliRunner().invoke(check, ["--services-file", "-", *arguments], input=text)


def test_fine(tmp_path: Path) -> None:
    """One line, exit 0."""
    write(tmp_path, **{"10": GOOD, "20": "log: {level: debug}\n"})
    result = run(tmp_path)
    want = "configuration ok: 2 files, services: web\n"
    assert (result.exit_code, result.output) == (0, want)


def test_fine_without_services(tmp_path: Path) -> None:
    """A VM that only calls others has no services."""
    write(tmp_path, **{"10": GOOD, "20": ""})
    (tmp_path / "conf.d" / "10.yaml").write_text(GOOD.split("services")[0])
    (tmp_path / "conf.d" / "20.yaml").unlink()
    assert run(tmp_path).output == "configuration ok: 1 file, services: none\n"


def test_problems(tmp_path: Path) -> None:
    """A line for each problem, exit 78."""
    write(tmp_path, **{"10": GOOD, "20": "log: {level: loud}\nvm: {naem: x}\n"})
    result = run(tmp_path)
    assert (result.exit_code, result.output.splitlines()) == (
        78,
        [
            f"{tmp_path}/conf.d/20.yaml:1: log.level: 'loud' is not one of debug, info, warning, error",
            f"{tmp_path}/conf.d/20.yaml:2: vm: unknown key 'naem', did you mean 'name'?",
        ],
    )


def test_nothing_there(tmp_path: Path) -> None:
    """No configuration is not a fine one."""
    result = run(tmp_path)
    want = f"no configuration in {tmp_path}/conf.d: begin with /usr/share/doc/vmoor/examples/vmoor.yaml\n"
    assert (result.exit_code, result.output) == (78, want)


def test_json(tmp_path: Path) -> None:
    """The same for machines."""
    assert json.loads(run(tmp_path, "--json").output)["ok"] is False
    write(tmp_path, **{"10": GOOD})
    assert json.loads(run(tmp_path, "--json").output) == {
        "ok": True,
        "files": [f"{tmp_path}/conf.d/10.yaml"],
        "services": ["web"],
        "sources": {},
        "warnings": [],
    }


def test_what_this_machine_lacks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is right; of another machine's, nothing is said."""
    write(tmp_path, **{"10": good(proxy={"envoy": "/nowhere/envoy"})})
    assert "warning" not in run(tmp_path).output
    monkeypatch.setattr("vmoor.cli.check.ROOT", tmp_path)
    result = run(tmp_path)
    assert result.exit_code == 0
    want = "proxy.envoy: /nowhere/envoy: no such file or directory"
    assert f"warning: {want}" in result.output.splitlines()
    assert want in json.loads(run(tmp_path, "--json").output)["warnings"]


def test_sources(tmp_path: Path) -> None:
    """A line for each that is configured, with what it is."""
    write(tmp_path, **{"10": good(sources={name: given for name, (given, _) in SOURCES.items()})})
    says = {name: words for name, (_, words) in SOURCES.items()}
    lines = [f"source {name}: {words}" for name, words in says.items()]
    assert run(tmp_path).output.splitlines()[1:] == lines
    assert json.loads(run(tmp_path, "--json").output)["sources"] == says


def test_a_document_of_services(tmp_path: Path) -> None:
    """A file or stdin, judged as the agent would; no configuration is needed."""
    path = tmp_path / "s.json"
    for text, code, words in (
        ('{"services": {"web": {"port": 1}, "api": {"port": 2}}}', 0, "services ok: api, web\n"),
        ('{"services": {}}', 0, "services ok: none\n"),
        (
            '{"services": {"a": {"port": 0}}}',
            78,
            ":1: services.a.port: 0 is not a port (1 to 65535)\n",
        ),
    ):
        path.write_text(text)
        for name, result in (
            (str(path), run(tmp_path, "--services-file", str(path))),
            ("stdin", document(text)),
        ):
            want = f"{name}{words}" if code else words
            assert (result.exit_code, result.output) == (code, want)


def test_a_document_of_services_for_machines(tmp_path: Path) -> None:
    """Whatever comes in."""
    good = document('{"services": {"web": {"port": 1}}}', "--json")
    assert json.loads(good.output) == {"ok": True, "services": ["web"]}
    for wrong in ("", "{", b"\xff", b" " * (1 << 20) + b" "):
        result = document(wrong, "--json")
        assert (result.exit_code, json.loads(result.output)["ok"]) == (78, False)
    assert "no such file" in run(tmp_path, "--services-file", str(tmp_path / "none")).output
