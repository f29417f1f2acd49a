"""The proxy's files are rendered once for the same parameters and templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from vmoor.adapters import children

from tests.fakes.files import FakeFiles

PARAMETERS = {"pod_name": "vm-1"}
KEPT = "/var/lib/vmoor/rendered.json"


class Child:
    """Answers with what it was told."""

    def __init__(self, module: str, *_: str) -> None:
        self.over = False

    def ended(self) -> bool:
        return self.over


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The children that were started."""
    started: list[Child] = []

    def child(module: str, *arguments: str) -> Child:
        started.append(Child(module, *arguments))
        return started[-1]

    monkeypatch.setattr(children, "_child", child)
    return started


@pytest.fixture
def asked(born: list[Child], monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    """The children that were asked; they answer with what they were told."""
    said: list[Child] = []

    def answer(_module: str, child: Child, text: str, *, ok: tuple[int, ...]) -> Any:
        said.append(child)
        return {"proxy.env": f"{len(said)} {text}"}

    monkeypatch.setattr(children, "_answer", answer)
    return said


def _render(files: FakeFiles, parameters: Mapping[str, Any] = PARAMETERS) -> Mapping[str, str]:
    return children.Renderer(files, KEPT)(parameters)


def test_the_same_parameters_need_no_child(asked: list[Child]) -> None:
    """A start of the agent renders nothing that it has rendered before."""
    files = FakeFiles()
    assert _render(files) == _render(files)
    assert len(asked) == 1


def test_other_parameters_are_rendered(asked: list[Child]) -> None:
    """What is kept never hides a change."""
    files = FakeFiles()
    _render(files)
    assert "vm-2" in _render(files, {"pod_name": "vm-2"})["proxy.env"]


def test_another_vmoor_renders_anew(asked: list[Child], monkeypatch: pytest.MonkeyPatch) -> None:
    """After an upgrade the templates may mean something else."""
    files = FakeFiles()
    _render(files)
    monkeypatch.setattr(children, "__version__", "99")
    _render(files)
    assert len(asked) == 2


def test_a_broken_record_is_rendered_over(asked: list[Child]) -> None:
    """A file that was cut short costs a child, not the start."""
    files = FakeFiles()
    files.write(KEPT, b'{"key":', 0o600)
    assert _render(files)["proxy.env"].startswith("1 ")


def test_the_first_rendering_is_prepared(asked: list[Child], born: list[Child]) -> None:
    """The child that loaded jinja2 while Vault was asked is the one that renders."""
    renderer = children.Renderer(FakeFiles(), KEPT)
    renderer.prepare()
    renderer(PARAMETERS)
    assert asked == born == [asked[0]]


def test_nothing_is_prepared_when_something_was_rendered(
    asked: list[Child], born: list[Child]
) -> None:
    """A restart of the agent starts no child in vain."""
    files = FakeFiles()
    _render(files)
    children.Renderer(files, KEPT).prepare()
    assert len(born) == 1


def test_a_child_that_ended_waiting_is_replaced(asked: list[Child], born: list[Child]) -> None:
    """Vault may be away for longer than a child waits."""
    renderer = children.Renderer(FakeFiles(), KEPT)
    renderer.prepare()
    born[0].over = True
    renderer(PARAMETERS)
    assert asked == [born[1]]


def test_the_configuration_is_validated_early(
    monkeypatch: pytest.MonkeyPatch, born: list[Child], tmp_path: Path
) -> None:
    """The child that was started before the daemon's own imports gives the first answer."""
    monkeypatch.setattr(children, "_answer", lambda _module, child, *_, **__: {"document": child})
    read = children.Reader(str(tmp_path))
    read.start()
    assert read().document is born[0]
    assert read().document is born[1]


def test_files_that_changed_meanwhile_are_read_again(
    monkeypatch: pytest.MonkeyPatch, born: list[Child], tmp_path: Path
) -> None:
    """cloud-init may write while the early child reads: its answer is not taken."""
    monkeypatch.setattr(children, "_answer", lambda _module, child, *_, **__: {"document": child})
    read = children.Reader(str(tmp_path))
    read.start()
    (tmp_path / "vmoor.yaml").write_text("vm: {}\n")
    assert read().document is born[1]
