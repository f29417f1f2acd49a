"""`vmoor reaper`: what vmoor-reaper.service and the Deployment run."""

from __future__ import annotations

from typing import Optional

import click

from vmoor import errors
from vmoor.adapters import account
from vmoor.config.facts import refuse_server
from vmoor.config.listen import listen_at
from vmoor.model.reaper import fleet


def _listen(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        if value:
            listen_at(value)
        return value
    except ValueError as e:
        raise click.BadParameter(f"{value!r} {e}") from None


@click.command()
@click.option("--server", metavar="URL", help="The API server; in a pod its own cluster's.")
@click.option(
    "--ca", metavar="FILE", help="CA certificates of the API server; in a pod those of kubelet."
)
@click.option(
    "--token-file",
    metavar="FILE",
    help="A token of vmoor-system/vmoor-reaper, read anew for each request.",
)
@click.option(
    "--budget",
    type=click.FloatRange(1.0, 10_000.0),
    default=fleet.BUDGET,
    show_default=True,
    help="Beats a second of the whole fleet; sets how often VMs beat.",
)
@click.option(
    "--zone-loss",
    type=click.Choice(["remove", "hold"]),
    default="remove",
    show_default=True,
    help="When all silent VMs are those of one zone, and all others live.",
)
@click.option(
    "--metrics-listen",
    metavar="ADDR:PORT",
    default="",
    callback=_listen,
    help="Serve metrics for Prometheus there, such as 127.0.0.1:9478.",
)
def reaper(
    server: Optional[str],
    ca: Optional[str],
    token_file: Optional[str],
    budget: float,
    zone_loss: str,
    metrics_listen: str,
) -> None:
    """Take VMs that fell silent out of the mesh.

    And delete what is left of them later. Several may run, one acts. Needs
    `vmoor admin manifests --reaper`.
    """
    from vmoor.reaper import daemon  # noqa: PLC0415 - not for every command

    server = server or account.in_cluster()
    if not server:
        raise click.UsageError("not in a pod: --server, --ca and --token-file are needed")
    wrong = refuse_server(server)
    if wrong:
        raise click.BadParameter(wrong, param_hint="--server")
    options = daemon.Options(
        server=server,
        ca=ca or f"{account.MOUNTED}/ca.crt",
        token_file=token_file or f"{account.MOUNTED}/token",
        budget=budget,
        zone_loss=zone_loss == "remove",
        metrics_listen=metrics_listen,
    )
    unusable = account.unusable(options.ca, options.token_file)
    for fault in unusable:
        click.echo(f"{fault.message}. Fix: {fault.remedy}", err=True)
    # Not a wrong option: the file may come later, and the unit starts this again.
    raise SystemExit(errors.EXIT_NOT_FINE if unusable else daemon.main(options))
