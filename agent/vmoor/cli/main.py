"""The command tree."""

from __future__ import annotations

from importlib import import_module
from typing import Optional

import click

from vmoor import __version__

MODULES = {
    **{name: name for name in ("admin", "check", "drain", "fleet", "proxy", "reaper", "render")},
    **{name: name for name in ("status", "ttl", "wait")},
    "resume": "drain",
}


class Commands(click.Group):
    """Loads the one that is asked for: all of them take half a second of CPU."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *MODULES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        if cmd_name not in MODULES:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"vmoor.cli.{MODULES[cmd_name]}")
        found: click.Command = getattr(module, cmd_name)
        return found


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99}
)
@click.version_option(__version__, prog_name="vmoor")
def vmoor() -> None:
    """Moor this virtual machine to an Istio mesh.

    On a VM: status, wait, drain, resume, check, render, proxy, ttl.
    From anywhere with a kubeconfig: fleet, admin.
    Exit codes: 0 fine, 1 not fine, 2 usage, 78 configuration.
    """


@vmoor.command()
def run() -> None:
    """Run the agent; systemd does this (vmoor.service)."""
    from vmoor.__main__ import run as daemon  # noqa: PLC0415 - not for every command

    raise SystemExit(daemon())
