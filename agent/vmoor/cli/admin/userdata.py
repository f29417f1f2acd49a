"""`vmoor admin user-data`: the cloud-init text for a fleet."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Optional
from urllib.parse import urlsplit

import click

from vmoor.cli.admin import options
from vmoor.config.load import load
from vmoor.errors import Misconfigured
from vmoor.model import userdata
from vmoor.model.userdata import Declared, Fleet, Pinned

_FORM = "NAME=PORT[,unit=UNIT][,http=PATH]"
_SERVICE = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?)=(\d+)")
_METADATA = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# In double and in single quotes, in YAML and in a shell, it stays what it is.
_TAME = re.compile(r"[A-Za-z0-9_.,:;/@%+=~?&-]+")
_NO_SIDECAR = """\
# No --sidecar: the VMs' image must hold Istio's istio-sidecar. It is in no apt repository, but at
# https://storage.googleapis.com/istio-release/releases/VERSION/deb/istio-sidecar.deb, its SHA-256
# beside it in istio-sidecar.deb.sha256; VERSION is istiod's (istioctl version).
"""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _tame(_: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    if value and not _TAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} has characters that do not belong here", param=param)
    return value


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
    if not found or set(pairs) - {"unit", "http"} or not all(map(_TAME.fullmatch, pairs.values())):
        raise click.BadParameter(f"{text!r} is not {_FORM}", param=param)
    unit = pairs.get("unit", "")
    # The configuration wants the suffix, as systemd's own files do.
    unit = unit if not unit or "." in unit else f"{unit}.service"
    return Declared(found[1], int(found[3]), unit, pairs.get("http", ""))


def _secret_id_from(_: click.Context, param: click.Parameter, value: str) -> str:
    if not _METADATA.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not like ds.meta_data.vmoor_wrap", param=param)
    return value


def _pinned(url: Optional[str], sha256: Optional[str], what: str) -> Optional[Pinned]:
    if not url:
        return None
    if not sha256 or not _SHA256.fullmatch(sha256):
        raise click.UsageError(f"--{what} URL needs --{what}-sha256, 64 hexadecimal digits")
    return Pinned(url, sha256)


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
@click.option("--role-id", required=True, callback=_tame, help="Of the AppRole; not a secret.")
@click.option("--approle", callback=_tame, help="The role's name, if that is not its RoleID.")
@click.option(
    "--approle-mount",
    default="approle",
    show_default=True,
    callback=_tame,
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
@click.option("--vault-ca", type=_FILE, help="PEM; without it the system's roots are trusted.")
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
@click.option(
    "--package",
    default="vmoor",
    show_default=True,
    callback=_tame,
    help="apt's name, a .deb in the image (its dependencies too), or a URL.",
)
@click.option("--package-sha256", metavar="HEX", help="Needed with a URL.")
@click.option("--sidecar", callback=_tame, metavar="URL", help="Istio's istio-sidecar .deb.")
@click.option("--sidecar-sha256", metavar="HEX", help="Needed with --sidecar.")
@click.option(
    "--apt-source", default="", metavar="LINE", help='As in sources.list: "deb URL SUITE main".'
)
@click.option("--apt-key", type=_FILE, help="Its key, ASCII-armoured.")
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
    package: str,
    package_sha256: Optional[str],
    sidecar: Optional[str],
    sidecar_sha256: Optional[str],
    apt_source: str,
    apt_key: Optional[Path],
) -> None:
    """Print a fleet's cloud-init user-data; no secret is in it.

    One text for all VMs of one kind.

    \b
    Example:
      vmoor admin user-data --vault-address https://vault.example:8200 --role-id shop-web \\
        --mesh secret/vmoor/mesh-a --namespace shop --service-account web --name web \\
        --service web=8080,unit=web.service > user-data.yaml
    """  # noqa: D301 - click's \b
    remote = bool(urlsplit(package).scheme)
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
        package=package,
        package_pinned=_pinned(package if remote else None, package_sha256, "package"),
        sidecar=_pinned(sidecar, sidecar_sha256, "sidecar"),
        apt_source=apt_source,
        apt_key=apt_key.read_text() if apt_key else "",
    )
    _checked(fleet)
    if sidecar is None:
        click.echo(_NO_SIDECAR, nl=False, err=True)
    click.echo(userdata.text(fleet), nl=False)
