"""The command tree."""

from __future__ import annotations

import click

from vmoor import __version__
from vmoor.cli.admin import admin
from vmoor.cli.check import check
from vmoor.cli.drain import drain, resume
from vmoor.cli.fleet import fleet
from vmoor.cli.proxy import proxy
from vmoor.cli.reaper import reaper
from vmoor.cli.render import render
from vmoor.cli.status import status
from vmoor.cli.ttl import ttl
from vmoor.cli.wait import wait


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99})
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


for command in (status, wait, drain, resume, check, render, proxy, ttl, fleet, reaper, admin):
    vmoor.add_command(command)
