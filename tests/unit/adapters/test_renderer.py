"""The proxy's files are rendered once for the same parameters and templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from vmoor.adapters import children

from tests.fakes.files import FakeFiles

PARAMETERS = {"pod_name": "vm-1"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the child process was asked; it answers with what it was told."""
    said: list[str] = []

    def ask(_module: str, _arguments: list[str], text: str, *, ok: tuple[int, ...]) -> Any:
        said.append(text)
        return {"proxy.env": f"{len(said)} {text}"}

    monkeypatch.setattr(children, "_ask", ask)
    return said


def _render(files: FakeFiles, parameters: Mapping[str, Any] = PARAMETERS) -> Mapping[str, str]:
    return children.Renderer(files, "/var/lib/vmoor/rendered.json")(parameters)


def test_the_same_parameters_need_no_child(asked: list[str]) -> None:
    """A start of the agent renders nothing that it has rendered before."""
    files = FakeFiles()
    assert _render(files) == _render(files)
    assert len(asked) == 1


def test_other_parameters_are_rendered(asked: list[str]) -> None:
    """What is kept never hides a change."""
    files = FakeFiles()
    _render(files)
    assert "vm-2" in _render(files, {"pod_name": "vm-2"})["proxy.env"]


def test_another_vmoor_renders_anew(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade the templates may mean something else."""
    files = FakeFiles()
    _render(files)
    monkeypatch.setattr(children, "__version__", "99")
    _render(files)
    assert len(asked) == 2


def test_a_broken_record_is_rendered_over(asked: list[str]) -> None:
    """A file that was cut short costs a child, not the start."""
    files = FakeFiles()
    files.write("/var/lib/vmoor/rendered.json", b'{"key":', 0o600)
    assert _render(files)["proxy.env"].startswith("1 ")
