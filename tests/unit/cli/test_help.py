from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from vmoor.cli.main import vmoor


def subcommands(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield name, found


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, sub in subcommands(command):
        yield from commands(sub, *path, name)


@pytest.mark.parametrize("path", commands(vmoor), ids=" ".join)
def test_help_is_whole(path: tuple[str, ...]) -> None:
    """In 80 columns no command's line is cut, and each option says what it is for."""
    result = CliRunner().invoke(vmoor, [*path, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert "..." not in result.output.replace("[ARGS]...", "")
    command: click.Command = vmoor
    for name in path:
        command = dict(subcommands(command))[name]
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.name


def test_a_command_loads_no_other() -> None:
    """The libraries of all commands together take half a second; these three need none."""
    code = (
        "import sys; from vmoor.cli.main import vmoor; "
        "[vmoor.get_command(None, name) for name in ('fleet', 'status', 'ttl')]; "
        "print({'jinja2', 'jsonschema', 'requests', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
