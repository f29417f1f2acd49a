"""`vmoor status`: what is so, what blocks, what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import click

from vmoor import errors
from vmoor.cli import statusfile

LAPSE_S = 86_400.0  # what happened at night is still told in the morning
REAPER = {"watching": ", reaper watching", "none": ", no reaper watches"}
WORD = {"ok": "ok", "wait": "wait", "fail": "FAIL"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The whole document, for programs.")
def status(*, as_json: bool) -> None:
    """Show whether this VM is moored, and what to do when it is not.

    Exit code 0 when moored and nothing is at risk, else 1.
    """
    document = statusfile.read()
    if document is None:
        click.echo(
            "The agent has not run since the boot.  Start it:  systemctl start vmoor", err=True
        )
        raise SystemExit(errors.EXIT_NOT_FINE)
    now = time.time()  # noqa: TID251 - the command line may look at the clock on the wall
    stale = now - float(document.get("written", 0)) > statusfile.STALE_S
    if as_json:
        click.echo(json.dumps({**document, "stale": stale}, indent=2))
    else:
        for line in lines(document, now, stale=stale):
            click.echo(statusfile.printable(line))
    fine = document.get("state") == "moored" and not stale
    raise SystemExit(errors.EXIT_OK if fine else errors.EXIT_NOT_FINE)


def lines(document: Mapping[str, Any], now: float, *, stale: bool) -> Iterator[str]:
    """The text for people."""
    if document.get("state") == "unknown":
        yield str(document["headline"])
        return
    left = document.get("state") == "left"
    yield _first(document, now, stale=stale and not left)
    if left:
        yield "This VM is out of the mesh.  Back:  systemctl start vmoor"
        return
    if stale:
        yield "The agent does not run; this is what it wrote last.  See:  systemctl status vmoor"
    steps = {s["name"]: s for s in document.get("steps", ())}
    fine = document.get("state") in ("moored", "drained")
    if fine:
        yield from _fine(document, now)
    else:
        yield from _steps(steps.values(), now)
    if document.get("services"):
        yield from _services(document["services"], now)
    yield from _drained(document, now)
    yield from _remedies(document, steps, now)


def _remedies(
    document: Mapping[str, Any], steps: Mapping[str, Mapping[str, Any]], now: float
) -> Iterator[str]:
    blocked = steps.get(document.get("blocked_at") or "")
    if blocked:
        if blocked["remedy"]:
            yield f"Fix:  {blocked['remedy']}"
        if blocked["state"] == "fail":
            left = max(0, round((blocked["next_try"] or now) - now))
            again = f"Next try in {left}s" if left else "It goes on when that is mended"
            yield f"{again}; no restart needed."
    if document.get("state") in ("moored", "at-risk"):
        yield from statusfile.conditions(document)


def _first(document: Mapping[str, Any], now: float, *, stale: bool) -> str:
    state, blocked = document.get("state", "unknown"), document.get("blocked_at")
    words = str(state).upper().replace("-", " ")
    place = [document.get(k) for k in ("mesh", "workload", "address", "locality")]
    where = "  ".join(str(p) for p in place if p)
    if state in ("moored", "at-risk"):
        risk = f", AT RISK: {blocked}" if state == "at-risk" else ""
        since = age(now - (document["proxy"]["since"] or now))
        words = f"MOORED {since}{risk}{_out(document)}"
    elif state == "drained":
        order = document["drained"]
        words = f"DRAINED by {order['who']} {_ago(order, now)}"
    elif blocked and not stale:
        step = next(s for s in document["steps"] if s["name"] == blocked)
        where = f"blocked at {blocked} for {age(now - (step['since'] or now))}"
    if stale:
        words = "AGENT NOT RUNNING, was " + words
    return f"{document.get('vm') or 'this VM'}  {words}  {where}".rstrip()


def _out(document: Mapping[str, Any]) -> str:
    out = sum(c["type"] == "out" for c in document.get("conditions", ()))
    count = len(document.get("services", ()))
    return f", {out} of {count} service{'' if count == 1 else 's'} out" if out else ""


def _ago(order: Mapping[str, Any], now: float) -> str:
    return f"{age(now - order['since'])} ago"


def _drained(document: Mapping[str, Any], now: float) -> Iterator[str]:
    order = document.get("drained")
    if order:
        back = "Back when its cloud says so." if document.get("notice") else "Back:  vmoor resume"
        yield f"Drained by {order['who']} {_ago(order, now)}.  {back}"
        return  # the services say the same
    for service in document.get("services", ()):
        order = service.get("drained")
        if order:
            name = service["name"]
            said = f"{name} is drained by {order['who']} {_ago(order, now)}."
            yield f"{said}  Back:  vmoor resume --service {name}"


def _fine(document: Mapping[str, Any], now: float) -> Iterator[str]:
    identity, proxy, beat = document["identity"], document["proxy"], document["heartbeat"]
    left = "  ".join(
        f"{name} {age(identity[key] - now)}"
        for name, key in (
            ("vault", "vault_expires"),
            ("api", "api_expires"),
            ("istio", "istio_expires"),
        )
        if identity.get(key)
    )
    yield f"identity   ok    {identity.get('method', '')} {identity.get('role', '')}; left: {left}"
    pending = ", restart pending: vmoor proxy restart" if proxy["restart_pending"] else ""
    yield f"proxy      ok    live {age(now - (proxy['since'] or now))}, {proxy['mode']}{pending}"
    ago = age(now - beat["at"]) if beat["at"] else "never"
    watched = REAPER.get(str(beat.get("reaper")), "")
    yield f"heartbeat  ok    {ago} ago, every {beat['interval']:g}s{watched}"


def _steps(steps: Iterable[Mapping[str, Any]], now: float) -> Iterator[str]:
    for step in steps:
        failing = step["state"] == "fail" and step["since"]
        since = f" (for {age(now - step['since'])})" if failing else ""
        yield f"{step['name']:<13}{WORD.get(step['state'], '?'):<6}{step['words']}{since}"


def _services(services: Sequence[Mapping[str, Any]], now: float) -> Iterator[str]:
    head = ("SERVICE", "SOURCE", "PORT", "HEALTH", "SINCE", "MESH", "LAST CHECK")
    rows = [head]
    for s in services:
        ports = ",".join(f"{name}:{number}" for name, number in s["ports"].items())
        since = age(now - s["since"]) if s["since"] else "-"
        words = s["words"] if s["entry"] != "refused" else f"refused: {s['entry_words']}"
        rows.append((s["name"], s["source"], ports, s["health"], since, _mesh(s, now), words))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
    for row, service in zip(rows, (None, *services)):
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        yield "  ".join([*cells, row[-1]])
        lapse = service and service.get("lapse")  # an older agent tells none
        if lapse and lapse["ended"] and now - lapse["ended"] < LAPSE_S:
            yield f"  before: out for {age(lapse['ended'] - lapse['began'])}, {lapse['words']}"


def _mesh(service: Mapping[str, Any], now: float) -> str:
    """What this VM's own proxy, one client of many, makes of it; and since when."""
    if not service.get("seen"):
        return "unseen"
    return f"{'in' if service['listed'] else 'out'} {age(now - service['seen'])}"


def age(seconds: float) -> str:
    """3d4h, 5m12s, 42s: the two largest units."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        if len(parts) == 2 or (parts and not count):  # noqa: PLR2004 - the two largest
            break
    return "".join(p for p in parts[:2] if not p.startswith("0") or len(parts) == 1)
