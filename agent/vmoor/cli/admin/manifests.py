"""`vmoor admin manifests`: the cluster's part, as YAML for kubectl."""

from __future__ import annotations

from typing import Optional

import click

from vmoor.cli.admin import options
from vmoor.model import manifests as model


@click.command()
@click.option("--namespace", callback=options.dns_label, help="The VMs'.")
@click.option(
    "--service-account",
    "account",
    callback=options.dns_label,
    help="The VMs' mesh identity; NAME-vmoor becomes their account for the API.",
)
@click.option(
    "--vault-service-account",
    "minter",
    default="vmoor-system/vmoor-vault",
    show_default=True,
    metavar="NAMESPACE/NAME",
    callback=options.namespaced,
    help="The account that Vault mints the VMs' tokens with.",
)
@click.option("--no-namespace", is_flag=True, help="The namespaces exist and stay as they are.")
@click.option(
    "--with-selectors",
    is_flag=True,
    help="VMs may read the namespace's ServiceEntries and Services, and tell which one nearly "
    "selects a service that nobody does.",
)
@click.option("--reaper", is_flag=True, help="Print what `vmoor reaper` needs instead.")
@click.option("--image", default="", help="With --reaper: also a Deployment of this image.")
def manifests(
    namespace: Optional[str],
    account: Optional[str],
    minter: tuple[str, str],
    *,
    no_namespace: bool,
    with_selectors: bool,
    reaper: bool,
    image: str,
) -> None:
    """Print accounts, rights and admission policy for the cluster.

    For VMs of one service account in one namespace, or for the reaper, as YAML.

    \b
    Examples:
      vmoor admin manifests --namespace shop --service-account web | kubectl apply -f -
      vmoor admin manifests --reaper --image IMAGE | kubectl apply -f -
    """  # noqa: D301 - click's \b
    if reaper:
        objects = model.reaper(image, namespaces=not no_namespace)
    elif not namespace or not account:
        raise click.UsageError("--namespace and --service-account are needed, or --reaper")
    else:
        objects = model.manifests(
            namespace, account, minter, namespaces=not no_namespace, selectors=with_selectors
        )
    click.echo(options.as_yaml(objects), nl=False)
