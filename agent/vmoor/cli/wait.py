"""`vmoor wait`: for scripts that go on when the VM is in the mesh."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from vmoor import errors
from vmoor.cli import statusfile

LOOK_S = 0.1
STATES = click.Choice(["moored", "reachable", "drained", "left"])


@click.command()
@click.option("--for", "what", type=STATES, default="moored", show_default=True, help="What.")
@click.option("--timeout", default=60.0, show_default=True, help="Seconds.")
def wait(what: str, timeout: float) -> None:
    """Wait until this VM is moored, reachable, drained, or has left.

    reachable: moored, and this VM's own proxy lists each healthy service. Exit code 1 when it is
    not so in time.

    \b
    Example:
      vmoor wait --timeout 120 && touch /run/app-may-start
    """  # noqa: D301 - click's \b
    deadline = time.monotonic() + timeout  # noqa: TID251 - a command, not a controller
    while True:
        document = statusfile.read()
        fresh = document and time.time() - document["written"] < statusfile.STALE_S  # noqa: TID251
        # Who has left writes no more.
        if document and (fresh or what == "left") and _is(document, what):
            return
        if time.monotonic() >= deadline:  # noqa: TID251
            said = document["headline"] if document else "the agent has not run since the boot"
            click.echo(statusfile.printable(f"not {what} after {timeout:g}s: {said}"), err=True)
            for line in statusfile.conditions(document or {}):
                click.echo(statusfile.printable(line), err=True)
            raise SystemExit(errors.EXIT_NOT_FINE)
        time.sleep(LOOK_S)  # noqa: TID251


def _is(document: Mapping[str, Any], what: str) -> bool:
    if what == "reachable":
        return bool(document.get("reachable"))
    reached = ("moored", "at-risk") if what == "moored" else (what,)
    return document["state"] in reached
