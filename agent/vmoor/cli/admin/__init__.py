"""`vmoor admin`: what the owner of a mesh does once, from a machine with a kubeconfig."""

from __future__ import annotations

import click

from vmoor.cli.admin.manifests import manifests
from vmoor.cli.admin.policy import vault_policy
from vmoor.cli.admin.publish import publish
from vmoor.cli.admin.serviceentry import service_entry
from vmoor.cli.admin.userdata import user_data


@click.group()
def admin() -> None:
    """Prepare a mesh and its Vault for VMs. Run it anywhere but on them.

    Only publish writes something, to Vault; the others print what you apply.
    """


for command in (manifests, publish, vault_policy, service_entry, user_data):
    admin.add_command(command)
