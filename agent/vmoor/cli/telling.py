"""How a command tells what it could not do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from vmoor import errors

F = TypeVar("F", bound=Callable[..., None])


def telling(command: F) -> F:
    """Expected failures as one line with what to do, and exit code 1."""

    @functools.wraps(command)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except errors.VmoorError as e:
            click.echo(e.message, err=True)
            if e.remedy:
                click.echo(f"Fix:  {e.remedy}", err=True)
            raise SystemExit(errors.EXIT_NOT_FINE) from None

    return told  # type: ignore[return-value]
