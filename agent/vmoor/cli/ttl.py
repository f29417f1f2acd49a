"""`vmoor ttl`: an application, a timer or a person says how a service is."""

from __future__ import annotations

import click

from vmoor import errors
from vmoor.adapters import pushing
from vmoor.model.service import DNS_LABEL
from vmoor.model.ttl import STATES


# What follows the name is a program's output as often as not: an option in it must not keep a
# `fail` from being heard.
@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("state", type=click.Choice(STATES))
@click.argument("name")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[WORDS]")
def ttl(state: str, name: str, words: tuple[str, ...]) -> None:
    """Say how the service NAME of this VM is, for its ttl check.

    pass: healthy; warn: in the mesh, with less weight; fail: out of it at once.
    Exit code 1 when nobody heard it.

    Example: vmoor ttl fail web no space left on /srv
    """
    if not DNS_LABEL.fullmatch(name):
        raise click.BadParameter(f"{errors.quoted(name)} is not a service name", param_hint="NAME")
    try:
        pushing.push(name, " ".join((state, *words)))
    except errors.VmoorError as e:
        click.echo(f"{e.message}: {e.remedy}" if e.remedy else e.message, err=True)
        raise SystemExit(errors.EXIT_NOT_FINE) from None
