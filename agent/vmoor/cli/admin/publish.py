"""`vmoor admin publish`: the mesh facts, from the cluster to Vault."""

from __future__ import annotations

import json

import click

from vmoor import errors
from vmoor.adapters.kubectl import Kubectl
from vmoor.cli.admin import gather, options
from vmoor.cli.telling import telling
from vmoor.config import facts
from vmoor.errors import Misconfigured
from vmoor.model import published
from vmoor.model.published import Wishes


@click.command()
@click.option(
    "--mesh",
    required=True,
    metavar="MOUNT/PATH",
    callback=options.mount_and_path,
    help="KV secret (v1 or v2) for the facts; `mesh` in the VMs' configuration.",
)
@click.option("--kubeconfig", default="", help="As kubectl's.")
@click.option("--context", default="", help="As kubectl's.")
@click.option("--istio-namespace", default="istio-system", show_default=True, help="istiod's.")
@click.option("--revision", default="", help="Istio's revision that VMs connect to.")
@click.option("--server", multiple=True, metavar="URL", help="API server as VMs reach it.")
@click.option("--discovery", multiple=True, metavar="HOST:PORT", help="istiod as VMs reach it.")
@click.option("--san", default="", help="Name in istiod's certificate.")
@click.option(
    "--vault-mount", default="kubernetes", show_default=True, help="Of its Kubernetes engine."
)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 when they differ.")
@click.option("--print", "show", is_flag=True, help="Write nothing; print the facts as JSON.")
@click.option("--json", "as_json", is_flag=True, help="With --check: the differences as JSON.")
@telling
def publish(  # noqa: PLR0913 - one for each option
    *,
    mesh: tuple[str, str],
    kubeconfig: str,
    context: str,
    istio_namespace: str,
    revision: str,
    server: tuple[str, ...],
    discovery: tuple[str, ...],
    san: str,
    vault_mount: str,
    check: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Write to Vault what VMs must know of the mesh.

    It is read from the cluster by kubectl. Vault as for the vault command: VAULT_ADDR,
    VAULT_CACERT, VAULT_NAMESPACE, VAULT_TOKEN or ~/.vault-token. There is no secret among the
    facts.

    \b
    Example:
      vmoor admin publish --mesh secret/vmoor/mesh-a
      vmoor admin publish --mesh secret/vmoor/mesh-a --check
    """  # noqa: D301 - click's \b
    wishes = Wishes(
        istio_namespace=istio_namespace,
        revision="" if revision == "default" else revision,
        server=server,
        discovery=discovery,
        san=san,
        vault_mount=vault_mount.strip("/"),
    )
    cluster = gather.gather(Kubectl(kubeconfig, context), wishes)
    want = published.document(cluster, wishes)
    try:
        facts.facts_from(want, "the cluster's facts")
    except Misconfigured as e:
        raise Misconfigured(e.problems, remedy="say it by --server, --discovery, --san") from None
    if show:
        click.echo(json.dumps(want, indent=2))
        return
    # hvac takes 0.3 s to load, and every vmoor command loads this module.
    from vmoor.cli.admin import vaultlogin  # noqa: PLC0415

    vault, token = vaultlogin.vault(), vaultlogin.token()
    name = "/".join(mesh)
    if not check:
        vault.write_kv(token, *mesh, want)
        click.echo(f"published {name}: {', '.join(want['istio']['discovery'])}")
        return
    lines = published.drift(want, vault.read_kv(token, *mesh))
    if as_json:
        click.echo(json.dumps({"mesh": name, "differences": list(lines)}, indent=2))
    else:
        click.echo("\n".join(lines) or f"{name} says what the cluster says")
    raise SystemExit(errors.EXIT_NOT_FINE if lines else errors.EXIT_OK)
