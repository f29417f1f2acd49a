"""`vmoor drain` and `vmoor resume`: out of the mesh by somebody's will, and back."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import click

from vmoor import errors
from vmoor.adapters import control
from vmoor.adapters.envoy_admin import EnvoyAdmin
from vmoor.cli import statusfile
from vmoor.config import durations
from vmoor.model.drain import unseen

LOOK_S = 0.1
ENVOY_S = 2.0

_SERVICE = click.option("--service", default="", help="This one only; the others stay.")


@click.command()
@_SERVICE
@click.option("--wait", is_flag=True, help="Return when nothing is sent or open any more.")
@click.option("--limit", default="30s", show_default=True, help="Of --wait.")
def drain(service: str, *, wait: bool, limit: str) -> None:
    """Take this VM, or one service, out of the mesh until `vmoor resume`.

    It stays so over restarts and reboots. What is open may finish; checks and heartbeat go
    on. With --wait, exit code 1 when something is still open at the limit.
    """
    try:
        seconds = durations.seconds(limit)
    except ValueError as e:
        raise click.UsageError(f"--limit: {e}") from None
    began = time.time()  # noqa: TID251 - a command, not a controller
    _ask("drain", service)
    what = service or "This VM"
    if not wait:
        click.echo(f"{what} is drained")
        return
    left = _until_quiet(service, began, seconds)
    took = time.time() - began  # noqa: TID251
    if left:
        click.echo(statusfile.printable(f"{what} is drained, but {left} after {took:.1f}s"))
        raise SystemExit(errors.EXIT_NOT_FINE)
    click.echo(f"{what} is drained: out of the mesh and nothing open after {took:.1f}s")


@click.command()
@_SERVICE
def resume(service: str) -> None:
    """End a drain: healthy services are back in the mesh at once."""
    said = statusfile.printable(_ask("resume", service))
    click.echo(f"{service or 'This VM'}: {said}")


def _ask(verb: str, service: str) -> str:
    try:
        return control.ask({"verb": verb, "service": service, "who": _who()})
    except errors.LocalFault as e:
        for line in (e.message, f"Fix:  {e.remedy}" if e.remedy else ""):
            click.echo(statusfile.printable(line), nl=bool(line), err=True)
        raise SystemExit(errors.EXIT_NOT_FINE) from None


def _who() -> str:
    by_sudo = os.environ.get("SUDO_USER")
    return by_sudo or pwd.getpwuid(os.getuid()).pw_name


def _until_quiet(service: str, began: float, seconds: float) -> str:
    """What is not done yet at the end; "" = all is done."""
    envoy = EnvoyAdmin()
    while True:
        document = statusfile.read()
        services = concerned(document, service, began) if document else None
        left = unseen(services)
        if services is not None and not left:
            ports = {port for s in services for port in s["ports"].values()}
            count = envoy.requests(ports, deadline=ENVOY_S) or 0
            left = f"{count} request{'' if count == 1 else 's'} open" if count else ""
        if not left or time.time() >= began + seconds:  # noqa: TID251
            return left
        time.sleep(LOOK_S)  # noqa: TID251


def concerned(
    document: Mapping[str, Any], service: str, began: float
) -> Optional[Sequence[Mapping[str, Any]]]:
    """The services that are being drained; None while the agent has not told of the drain yet."""
    services = [s for s in document["services"] if service in ("", s["name"])]
    told = document["written"] >= began and all(s.get("drained") for s in services)
    return services if told else None
