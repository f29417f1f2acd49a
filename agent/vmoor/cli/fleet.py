"""`vmoor fleet`: all VMs of the mesh, read with the operator's kubectl."""

from __future__ import annotations

import gc
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from vmoor import errors
from vmoor.adapters.kubectl import Kubectl
from vmoor.cli.status import age
from vmoor.cli.statusfile import printable
from vmoor.cli.telling import telling
from vmoor.errors import Rejected
from vmoor.model.entry import SELECTOR, Object
from vmoor.model.reaper import overview
from vmoor.model.reaper.overview import STATES, Gathered, Overview, Row
from vmoor.ports import Kind

WATCH_S = 2.0
FINE = ("beats", "drained", "left")


class Known:
    """Options that stand before a subcommand, for it."""

    def __init__(self, kubeconfig: str, context: str) -> None:
        self._kubectl = Kubectl(kubeconfig, context)

    def look(self, namespace: str) -> Overview:
        gathered = Gathered()
        with ThreadPoolExecutor(2) as pool:
            takes = (gathered.lease, gathered.entry)
            list(pool.map(self._all, (Kind.LEASE, Kind.ENTRY), takes))
        seen = gathered.overview(time.time())  # noqa: TID251 - a command
        return seen._replace(rows=[r for r in seen.rows if namespace in ("", r.vm.namespace)])

    def _all(self, kind: Kind, take: Callable[[Object], None]) -> None:
        path = kind.value.replace("namespaces/{namespace}/", "")
        # Version 0: from the server's memory, a few milliseconds old, not from etcd.
        self._kubectl.each(f"{path}?labelSelector={SELECTOR}&resourceVersion=0", take)

    def apply(self, objects: Sequence[Object]) -> None:
        self._kubectl.apply(objects, manager="vmoor-fleet")


@click.group(invoke_without_command=True)
@click.option("--namespace", "-n", default="", help="Only its VMs.")
@click.option("--watch", "-w", is_flag=True, help="Again every 2 s, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="All of it, for programs.")
@click.option("--kubeconfig", default="", help="As kubectl's.")
@click.option("--context", "name", default="", help="As kubectl's.")
@click.pass_context
@telling
def fleet(
    context: click.Context,
    *,
    namespace: str,
    watch: bool,
    as_json: bool,
    kubeconfig: str,
    name: str,
) -> None:
    """Show all VMs of the mesh, and the reaper's brake.

    Their last beat, services and versions, from any machine with a kubeconfig. Exit code 0 when
    all beat and a reaper watches, else 1.
    """
    gc.disable()  # of a million small values nearly all live to the end: looking takes a second
    context.obj = known = Known(kubeconfig, name)
    if context.invoked_subcommand is not None:
        return
    while True:
        seen = known.look(namespace)
        if as_json:
            click.echo(json.dumps(seen.document(), indent=None if watch else 2))
        else:
            if watch:
                click.clear()
            click.echo("\n".join(printable(line) for line in lines(seen)))
        if not watch:
            raise SystemExit(errors.EXIT_OK if fine(seen) else errors.EXIT_NOT_FINE)
        gc.collect()
        time.sleep(WATCH_S)  # noqa: TID251 - a command


@fleet.command()
@click.argument("vms", nargs=-1, metavar="[NAMESPACE/VM]…")
@click.option("--silent", is_flag=True, help="All that are silent now.")
@click.option("--namespace", "-n", default="", help="With --silent: only of this one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--kubeconfig", default="", help="As kubectl's.")
@click.option("--context", "name", default="", help="As kubectl's.")
@click.pass_obj
@telling
def confirm(
    known: Known,
    vms: tuple[str, ...],
    *,
    silent: bool,
    namespace: str,
    yes: bool,
    kubeconfig: str,
    name: str,
) -> None:
    """Say that silent VMs are dead, so that the brake holds them no more.

    It counts for the beat that was seen: who beats again is alive, whatever was said.

    \b
    Examples:
      vmoor fleet confirm shop/web-3 shop/web-4
      vmoor fleet confirm --silent --namespace shop
    """  # noqa: D301 - click's \b
    if kubeconfig or name:
        known = Known(kubeconfig, name)
    rows = _chosen(known.look(namespace).rows, vms, silent=silent)
    for row in rows:
        click.echo(printable(f"{row.vm}  {row.state}  {_beat(row)}"))
    if not yes:
        click.confirm(f"Are these {len(rows)} VMs dead?", abort=True)
    known.apply(overview.confirmations(rows))
    click.echo(f"confirmed {len(rows)}; the reaper takes them out within seconds")


def _chosen(rows: Sequence[Row], vms: Sequence[str], *, silent: bool) -> Sequence[Row]:
    if silent == bool(vms):
        raise click.UsageError("name VMs, or --silent")
    dead = [row for row in rows if row.state in ("silent", "dead")]
    if silent:
        if not dead:
            raise Rejected("cannot confirm: no VM is silent")
        return dead
    known = {str(row.vm): row for row in dead}
    wrong = [vm for vm in vms if vm not in known]
    if wrong:
        raise Rejected(
            f"cannot confirm {wrong[0]}: it is not silent", remedy="vmoor fleet shows who is"
        )
    return [known[vm] for vm in vms]


def fine(seen: Overview) -> bool:
    return bool(seen.reaper) and not seen.brakes and all(r.state in FINE for r in seen.rows)


def lines(seen: Overview) -> Iterator[str]:
    """The text for people."""
    count = Counter(row.state for row in seen.rows)
    states = ", ".join(f"{count[state]} {state}" for state in reversed(STATES) if count[state])
    watched = f"reaper {seen.reaper}" if seen.reaper else "no reaper watches"
    yield f"{len(seen.rows)} VMs: {states or 'none'}; a beat every {seen.interval:g}s; {watched}"
    for brake in seen.brakes:
        namespace, slash, _ = str(brake["scope"]).partition("/")
        where = f" --namespace {namespace}" if slash else ""
        yield (
            f"BRAKE on {brake['scope']}: {brake['lost']} of {brake['of']} VMs are lost, nothing "
            f"is removed.  If they are dead:  vmoor fleet confirm --silent{where}"
        )
    if seen.rows:
        yield from _table(seen.rows)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    table = [("VM", "STATE", "BEAT", "ZONE", "VERSION", "SERVICES")]
    for row in rows:
        services = " ".join(_service(s) for s in row.services) or "-"
        state = f"{row.state}, confirmed" if row.confirmed else row.state
        table.append(
            (str(row.vm), state, _beat(row), row.zone or "-", row.version or "-", services)
        )
    widths = [max(len(line[i]) for line in table) for i in range(5)]
    for line in table:
        yield "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths)), line[-1]])


def _beat(row: Row) -> str:
    return "never" if row.age is None else f"{age(row.age)} ago"


def _service(service: Any) -> str:
    if service["health"] == "True":
        return str(service["name"])
    return f"{service['name']}:{service['reason'] or service['health']}"
