# ruff: noqa: E501 - messages stand in one piece, as they are told

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result
from vmoor.cli.check import check

from tests.unit.config.folders import GOOD, write


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(check, ["--config-dir", str(root), *arguments])


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
    want = f"no configuration in {tmp_path}/conf.d, waiting for one\n"
    assert (result.exit_code, result.output) == (78, want)


def test_json(tmp_path: Path) -> None:
    """The same for machines."""
    assert json.loads(run(tmp_path, "--json").output)["ok"] is False
    write(tmp_path, **{"10": GOOD})
    assert json.loads(run(tmp_path, "--json").output) == {
        "ok": True,
        "files": [f"{tmp_path}/conf.d/10.yaml"],
        "services": ["web"],
    }
