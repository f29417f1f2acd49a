"""`vmoor proxy restart`: the one way in which new proxy files take effect."""

from __future__ import annotations

import click

from vmoor.adapters import run
from vmoor.errors import EXIT_NOT_FINE, LocalFault
from vmoor.proxyunit import UNIT


@click.group()
def proxy() -> None:
    """The sidecar proxy of this VM (vmoor-proxy.service)."""


@proxy.command()
def restart() -> None:
    """Restart pilot-agent and Envoy; it cuts connections of this VM.

    Applies what `vmoor status` calls "restart pending". Services are out of the mesh for
    the seconds that it takes.
    """
    try:
        done = run.run(["systemctl", "restart", UNIT], timeout=120.0)
    except LocalFault:
        click.echo("it is still starting, see: vmoor status", err=True)
        raise SystemExit(EXIT_NOT_FINE) from None
    if done.code:
        click.echo(f"cannot restart the proxy: {done.stderr.strip()}", err=True)
        raise SystemExit(EXIT_NOT_FINE)
    click.echo("restarted, ready")
