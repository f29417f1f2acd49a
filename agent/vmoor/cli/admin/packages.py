"""`vmoor admin user-data`: where the VMs get vmoor and Istio's sidecar from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

import click

from vmoor.cli.admin import options as common
from vmoor.cli.telling import F
from vmoor.model.userdata import IN_IMAGE, Packages, Pinned

_ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_SIDECAR = """\
# No --sidecar: the VMs' image must hold Istio's istio-sidecar. It is in no repository, but at
# https://storage.googleapis.com/istio-release/releases/VERSION/{kind}/istio-sidecar.{kind}, its
# SHA-256 beside it in istio-sidecar.{kind}.sha256; VERSION is istiod's (istioctl version).
"""
_NO_PACKAGE = f"""\
vmoor is in no public repository; where do the VMs get it from?
  --apt-source LINE --apt-key FILE, or --yum-repo URL --yum-key FILE
  --package URL --package-sha256 HEX
  --package /FILE   a file in their image
  --package vmoor   their image has a repository with it
  --package {IN_IMAGE}    it is installed in their image"""


def _package(ctx: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    name = common.tame(ctx, param, value) or ""
    elsewhere = name.startswith("/") or urlsplit(name).scheme
    if not elsewhere and ("/" in name or name.endswith((".deb", ".rpm"))):
        raise click.BadParameter(
            f"{name!r} is looked for on the VM: say its absolute path there, or a URL", param=param
        )
    return value


def _line(_: click.Context, param: click.Parameter, value: str) -> str:
    if value and not value.startswith("deb "):
        raise click.BadParameter(f'{value!r} is no line such as "deb URL SUITE main"', param=param)
    return value


def _url(_: click.Context, param: click.Parameter, value: str) -> str:
    if value and urlsplit(value).scheme not in ("https", "http", "file"):
        raise click.BadParameter(f"{value!r} is no URL", param=param)
    return value


_OPTIONS = (
    click.option(
        "--package",
        callback=_package,
        metavar="WHAT",
        help="A URL, a file in the image (its dependencies too), a name in a repository, or "
        f"{IN_IMAGE}: the image holds it. Default with --apt-source and --yum-repo: vmoor.",
    ),
    click.option("--package-sha256", metavar="HEX", help="Needed with a URL."),
    click.option(
        "--sidecar",
        callback=common.tame,
        metavar="URL",
        help="Istio's istio-sidecar, .deb or .rpm.",
    ),
    click.option("--sidecar-sha256", metavar="HEX", help="Needed with --sidecar."),
    click.option(
        "--apt-source",
        default="",
        callback=_line,
        metavar="LINE",
        help='As in sources.list: "deb URL SUITE main".',
    ),
    click.option("--apt-key", type=common.FILE, help="Its key, ASCII-armoured."),
    click.option("--yum-repo", default="", metavar="URL", callback=_url, help="As in baseurl=."),
    click.option("--yum-key", type=common.FILE, help="Its key, ASCII-armoured; needed."),
)


def options(command: F) -> F:
    """The command takes them all as keywords, for `chosen`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(  # noqa: PLR0913 - one for each option
    *,
    package: Optional[str],
    package_sha256: Optional[str],
    sidecar: Optional[str],
    sidecar_sha256: Optional[str],
    apt_source: str,
    apt_key: Optional[Path],
    yum_repo: str,
    yum_key: Optional[Path],
) -> Packages:
    """UsageError if no VM could install this."""
    if not (package or apt_source or yum_repo):
        raise click.UsageError(_NO_PACKAGE)
    if bool(yum_repo) != bool(yum_key):
        raise click.UsageError("--yum-repo and --yum-key belong together")
    kind = _kind(apt_source, yum_repo, package, sidecar)
    name = package or "vmoor"
    made = Packages(
        name=name,
        pinned=_pinned(name if urlsplit(name).scheme else None, package_sha256, "package"),
        sidecar=_pinned(sidecar, sidecar_sha256, "sidecar"),
        kind=kind,
        apt_source=apt_source,
        apt_key=_key(apt_key),
        yum_repo=yum_repo,
        yum_key=_key(yum_key),
    )
    if sidecar is None:
        click.echo(_NO_SIDECAR.format(kind=kind), nl=False, err=True)
    return made


def _key(path: Optional[Path]) -> str:
    if path is None:
        return ""
    text = path.read_bytes()
    if not text.lstrip().startswith(_ARMOUR):
        raise click.UsageError(
            f"{path} is no ASCII-armoured key: gpg --armor --export KEY-ID > {path.stem}.asc"
        )
    return text.decode("ascii", "replace")


def _kind(apt_source: str, yum_repo: str, *files: Optional[str]) -> str:
    """Deb or rpm."""
    kinds = {file[-3:] for file in files if file and file.endswith((".deb", ".rpm"))}
    kinds |= {kind for kind, given in (("deb", apt_source), ("rpm", yum_repo)) if given}
    if len(kinds) > 1:
        raise click.UsageError("a part of this is for .deb, another for .rpm: make two texts")
    return kinds.pop() if kinds else "deb"


def _pinned(url: Optional[str], sha256: Optional[str], what: str) -> Optional[Pinned]:
    if not url:
        if sha256:
            raise click.UsageError(f"--{what}-sha256 is for --{what} URL")
        return None
    if not sha256 or not _SHA256.fullmatch(sha256):
        raise click.UsageError(f"--{what} URL needs --{what}-sha256, 64 hexadecimal digits")
    return Pinned(url, sha256)
