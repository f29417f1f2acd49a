"""`vmoor admin user-data`: the cloud-init text for a fleet."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Optional

import click

from vmoor.cli.admin import options, packages
from vmoor.config.load import load
from vmoor.errors import Misconfigured
from vmoor.model import userdata
from vmoor.model.userdata import Declared, Fleet

_FORM = "NAME=PORT[,unit=UNIT][,http=PATH]"
_SERVICE = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)=(\d+)")
_METADATA = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _services(
    _: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[Declared, ...]:
    found = tuple(_service(value, param) for value in values)
    twice = [name for name, count in Counter(s.name for s in found).items() if count > 1]
    if twice:
        raise click.BadParameter(f"{', '.join(twice)} stands there twice", param=param)
    return found


def _service(text: str, param: click.Parameter) -> Declared:
    first, *more = text.split(",")
    found, pairs = _SERVICE.fullmatch(first), dict(item.partition("=")[::2] for item in more)
    if (
        not found
        or set(pairs) - {"unit", "http"}
        or not all(map(options.TAME.fullmatch, pairs.values()))
    ):
        raise click.BadParameter(f"{text!r} is not {_FORM}", param=param)
    unit = pairs.get("unit", "")
    # The configuration wants the suffix, as systemd's own files do.
    unit = unit if not unit or "." in unit else f"{unit}.service"
    return Declared(found[1], int(found[3]), unit, pairs.get("http", ""))


def _secret_id_from(_: click.Context, param: click.Parameter, value: str) -> str:
    if not _METADATA.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not like ds.meta_data.vmoor_wrap", param=param)
    return value


def _checked(fleet: Fleet) -> None:
    """What `vmoor check` would refuse on each VM is refused here, once."""
    with TemporaryDirectory() as root:
        file = Path(root) / "conf.d" / PurePosixPath(userdata.CONFIGURATION).name
        file.parent.mkdir()
        file.write_text(userdata.configuration(fleet))
        try:
            load(Path(root))
        except Misconfigured as e:
            told = "\n".join(e.problems).replace(str(file), file.name)
            raise click.UsageError(
                f"the agents would refuse this configuration:\n{told}"
            ) from None


def _wrapping_path(role_id: str, approle: Optional[str], mount: str) -> str:
    if not approle and _UUID.fullmatch(role_id):
        raise click.UsageError("--role-id is generated: say the role's name too, --approle NAME")
    return f"auth/{mount}/role/{approle or role_id}/secret-id"


@click.command("user-data")
@click.option(
    "--vault-address",
    "vault",
    required=True,
    multiple=True,
    metavar="URL",
    help="Several are tried in this order.",
)
@click.option(
    "--role-id", required=True, callback=options.tame, help="Of the AppRole; not a secret."
)
@click.option(
    "--approle", callback=options.tame, help="The role's name, if that is not its RoleID."
)
@click.option(
    "--approle-mount",
    default="approle",
    show_default=True,
    callback=options.tame,
    help="Where Vault has the login.",
)
@click.option(
    "--mesh",
    required=True,
    metavar="MOUNT/PATH",
    callback=options.mount_and_path,
    help="Where `vmoor admin publish` wrote the facts.",
)
@click.option("--namespace", required=True, callback=options.dns_label, help="The VMs'.")
@click.option(
    "--service-account",
    "account",
    required=True,
    callback=options.dns_label,
    help="The VMs' mesh identity.",
)
@click.option("--name", required=True, callback=options.dns_label, help="Of the workload.")
@click.option(
    "--service",
    "services",
    multiple=True,
    metavar=_FORM,
    callback=_services,
    help="What the VMs offer; may be given several times, and not at all.",
)
@click.option(
    "--vault-ca", type=options.FILE, help="PEM; without it the system's roots are trusted."
)
@click.option(
    "--secret-id",
    type=click.Choice(["wrapped", "plain", "none"]),
    default="wrapped",
    show_default=True,
    help="What the metadata holds; none: the file comes by other means.",
)
@click.option(
    "--secret-id-from",
    default="ds.meta_data.vmoor_wrap",
    show_default=True,
    callback=_secret_id_from,
    help="Instance metadata, as cloud-init names it.",
)
@packages.options
def user_data(  # noqa: PLR0913 - one for each option
    *,
    vault: tuple[str, ...],
    role_id: str,
    approle: Optional[str],
    approle_mount: str,
    mesh: tuple[str, str],
    namespace: str,
    account: str,
    name: str,
    services: tuple[Declared, ...],
    vault_ca: Optional[Path],
    secret_id: str,
    secret_id_from: str,
    **where: Any,
) -> None:
    """Print a fleet's cloud-init user-data; no secret is in it.

    One text for all VMs of one kind.

    \b
    Example:
      vmoor admin user-data --vault-address https://vault.example:8200 --role-id shop-web \\
        --mesh secret/vmoor/mesh-a --namespace shop --service-account web --name web \\
        --service web=8080,unit=web.service \\
        --apt-source "deb https://packages.example/apt ./" --apt-key vmoor.asc > user-data.yaml
    """  # noqa: D301 - click's \b
    fleet = Fleet(
        vault=vault,
        role_id=role_id,
        mesh="/".join(mesh),
        workload={"namespace": namespace, "name": name, "service_account": account},
        services=services,
        wrapping_path=_wrapping_path(role_id, approle, approle_mount)
        if secret_id == "wrapped"  # noqa: S105 - a choice
        else "",
        secret_id_from="" if secret_id == "none" else secret_id_from,  # noqa: S105
        vault_ca=vault_ca.read_text() if vault_ca else "",
        packages=packages.chosen(**where),
    )
    _checked(fleet)
    click.echo(userdata.text(fleet), nl=False)
