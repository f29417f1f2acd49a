"""`vmoor ttl`: what is said, and with which exit code."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result
from vmoor.adapters import pushing
from vmoor.cli.ttl import ttl
from vmoor.errors import Forbidden

said: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def _socket(monkeypatch: pytest.MonkeyPatch) -> None:
    said.clear()
    monkeypatch.setattr(pushing, "push", lambda *message: said.append(message))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(ttl, arguments)


def test_words_are_whatever_follows_the_name() -> None:
    """An option in a program's output keeps nothing from being said."""
    assert run("fail", "web", "exit 3:", "--no-space left", "-x").exit_code == 0
    assert said == [("web", "fail exit 3: --no-space left -x")]


@pytest.mark.parametrize(
    "arguments", [("passed", "web"), ("pass",), ("pass", "../web"), ("pass", "web/x")]
)
def test_wrong_usage_says_nothing(arguments: tuple[str, ...]) -> None:
    """Exit code 2; a name is no path."""
    assert run(*arguments).exit_code == 2
    assert said == []


def test_what_nobody_heard_is_told_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1."""

    def refuse(*_: str) -> None:
        raise Forbidden("cannot push for web: only root may", remedy="become root")

    monkeypatch.setattr(pushing, "push", refuse)
    result = run("pass", "web")
    assert result.exit_code == 1
    assert result.output == "cannot push for web: only root may: become root\n"
