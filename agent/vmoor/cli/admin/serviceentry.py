"""`vmoor admin service-entry`: makes a service of VMs callable, as YAML for kubectl."""

from __future__ import annotations

import ipaddress
import re
from typing import Optional

import click

from vmoor.cli.admin import options
from vmoor.config import durations
from vmoor.model import serviceentry
from vmoor.model.serviceentry import Port

_NO_ADDRESS = """\
# No --vip: Istio 1.25 and newer allocates an address by itself (240.240.0.0/16), older ones with
# ISTIO_META_DNS_AUTO_ALLOCATE=true; without either, plain TCP ports need --vip.
"""
_RETRIES = """\
# Retries go to another VM than the one that failed (Istio's default), at most {attempts} times.
# Reading methods are tried again also after a connection reset, as of a process that was killed
# while it answered, and after {timeout} without an answer: raise that if answers take longer.
# All other methods as Istio does by default, and when the connection broke before the request
# was sent: what the application may have done once is not asked of it again.
"""
_FORM = "NUMBER:NAME[:TARGET][/PROTOCOL]"
_PORT = re.compile(r"(\d+):([a-z0-9]([-a-z0-9]*[a-z0-9])?)(?::(\d+))?(?:/([a-z0-9-]+))?")
_LARGEST = 65535


def _ports(_: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Port, ...]:
    return tuple(_port(value, param) for value in values)


def _port(text: str, param: click.Parameter) -> Port:
    found = _PORT.fullmatch(text.lower())  # ServiceEntries write HTTP2
    if not found:
        raise click.BadParameter(f"{text!r} is not {_FORM}", param=param)
    number, name, target = int(found[1]), found[2], int(found[4] or found[1])
    if not (0 < number <= _LARGEST and 0 < target <= _LARGEST):
        raise click.BadParameter(f"{text!r}: ports are 1 to {_LARGEST}", param=param)
    protocol = found[5] or _protocol(name)
    if protocol not in serviceentry.PROTOCOLS:
        known = ", ".join(serviceentry.PROTOCOLS)
        raise click.BadParameter(
            f"{text!r} tells no protocol: write {number}:{name}/http (or {known})", param=param
        )
    return Port(number, name, protocol, target)


def _protocol(name: str) -> str:
    return "grpc-web" if name.startswith("grpc-web") else name.partition("-")[0]


def _duration(_: click.Context, param: click.Parameter, value: str) -> str:
    try:
        durations.seconds(value)
    except ValueError as e:
        raise click.BadParameter(str(e), param=param) from None
    return value


def _address(_: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    try:
        return str(ipaddress.ip_address(value)) if value else None
    except ValueError:
        raise click.BadParameter(f"{value!r} is not an IP address", param=param) from None


@click.command("service-entry")
@click.option("--namespace", required=True, callback=options.dns_label, help="The VMs'.")
@click.option(
    "--service",
    required=True,
    callback=options.dns_label,
    help="Its name in the VMs' configuration.",
)
@click.option("--host", required=True, help="What clients call it.")
@click.option(
    "--port",
    "ports",
    required=True,
    multiple=True,
    metavar=_FORM,
    callback=_ports,
    help="NAME is the port's name in the VMs' configuration (`port: N` there is http).",
)
@click.option("--vip", metavar="IP", callback=_address, help="A virtual address for the host.")
@click.option("--retries", is_flag=True, help="Also a VirtualService with retries (HTTP, gRPC).")
@click.option(
    "--try-timeout",
    default="5s",
    show_default=True,
    callback=_duration,
    help="Of one reading try.",
)
def service_entry(
    *,
    namespace: str,
    service: str,
    host: str,
    ports: tuple[Port, ...],
    vip: Optional[str],
    retries: bool,
    try_timeout: str,
) -> None:
    """Print a ServiceEntry that selects the VMs of a service.

    With --retries a VirtualService, too.

    \b
    Example:
      vmoor admin service-entry --namespace shop --service web --host web.shop.mesh \\
        --port 80:http --vip 240.240.0.1 | kubectl apply -f -
    """  # noqa: D301 - click's \b
    if not vip:
        click.echo(_NO_ADDRESS, nl=False)
    made = serviceentry.service_entry(namespace, service, host, ports, vip)
    click.echo(options.as_yaml([made]), nl=False)
    if not retries:
        return
    if not any(port.protocol in serviceentry.HTTP for port in ports):
        raise click.UsageError("--retries is for HTTP and gRPC ports, and there is none")
    told = _RETRIES.format(attempts=serviceentry.ATTEMPTS, timeout=try_timeout)
    made = serviceentry.retries(namespace, service, host, try_timeout)
    # Inside its document, or a parser of the stream would count the comment to the one before.
    text = options.as_yaml([made])
    click.echo(text.replace("---\n", f"---\n{told}", 1), nl=False)
