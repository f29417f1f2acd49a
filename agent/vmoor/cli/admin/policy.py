"""`vmoor admin vault-policy`: Vault's part for one kind of VM, as HCL."""

from __future__ import annotations

import click

from vmoor.cli.admin import options
from vmoor.model import vaultpolicy


@click.command()
@click.option(
    "--role",
    required=True,
    callback=options.dns_label,
    help="Role of Vault's Kubernetes engine: the service account. ROLE-vmoor is the API's.",
)
@click.option("--namespace", required=True, callback=options.dns_label, help="The VMs' namespace.")
@click.option(
    "--mesh",
    required=True,
    metavar="MOUNT/PATH",
    callback=options.mount_and_path,
    help="Where the mesh facts are, as in the VMs' configuration.",
)
@click.option(
    "--kubernetes-mount",
    "mount",
    default="kubernetes",
    show_default=True,
    help="Of Vault's Kubernetes engine.",
)
@click.option(
    "--kv-version",
    type=click.Choice(["1", "2"]),
    default="2",
    show_default=True,
    help="Of the mount of --mesh.",
)
def vault_policy(
    role: str, namespace: str, mesh: tuple[str, str], mount: str, kv_version: str
) -> None:
    """Print Vault's policy for VMs of one service account.

    \b
    Example:
      vmoor admin vault-policy --role web --namespace shop --mesh secret/vmoor/mesh-a |
        vault policy write vmoor-web -
    """  # noqa: D301 - click's \b
    text = vaultpolicy.policy(
        role, namespace, mesh, mount=mount.strip("/"), kv_version=int(kv_version)
    )
    click.echo(text, nl=False)
