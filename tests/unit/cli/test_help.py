from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from vmoor.cli.main import vmoor


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, *path, name)


@pytest.mark.parametrize("path", commands(vmoor), ids=" ".join)
def test_help_is_whole(path: tuple[str, ...]) -> None:
    """In 80 columns no command's line is cut, and each option says what it is for."""
    result = CliRunner().invoke(vmoor, [*path, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert "..." not in result.output.replace("[ARGS]...", "")
    command: click.Command = vmoor
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.name
