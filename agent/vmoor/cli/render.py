"""`vmoor render`: the proxy's files as the templates make them now. No secret is in them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

import click

from vmoor import errors, proxyunit
from vmoor.adapters import children, templates

PARAMETERS = Path("/run/vmoor/parameters.json")
RENDERED = Path(proxyunit.RENDERED)


@click.command()
@click.option("--templates", "folder", type=click.Path(exists=True), help="Look here first.")
@click.option(
    "--diff", "as_diff", is_flag=True, help="Against what the agent rendered; 1 = differs."
)
@click.option("--json", "as_json", is_flag=True, help="The files by name.")
def render(folder: Optional[str], *, as_diff: bool, as_json: bool) -> None:
    """Print the proxy's files as the templates make them now.

    No secret is in them. What the agent knows of the mesh goes in, as it stands now.

    \b
    Example:
      vmoor render --templates ./my-templates --diff
    """  # noqa: D301 - click's \b
    try:
        parameters = json.loads(PARAMETERS.read_bytes())
        folders = [*([folder] if folder else []), *children.FOLDERS]
        files = templates.render(parameters, folders)
    except FileNotFoundError:
        click.echo(
            "nothing to render yet: the agent does not know its mesh; see vmoor status", err=True
        )
        raise SystemExit(errors.EXIT_NOT_FINE) from None
    except errors.LocalFault as e:
        click.echo(f"{e}. {e.remedy}".rstrip(), err=True)
        raise SystemExit(errors.EXIT_NOT_FINE) from None
    if as_diff:
        raise SystemExit(_diff(files))
    if as_json:
        click.echo(json.dumps(files, indent=2))
        return
    for name, text in files.items():
        click.echo(f"# {RENDERED / name}\n{text.rstrip()}\n")


def _diff(files: Mapping[str, str]) -> int:
    differs = False
    for name, text in files.items():
        try:
            old = (RENDERED / name).read_text()
        except OSError as e:
            raise click.ClickException(f"cannot read {RENDERED / name}: {e.strerror}") from e
        lines = difflib.unified_diff(
            old.splitlines(),
            text.splitlines(),
            f"running/{name}",
            f"templates/{name}",
            lineterm="",
        )
        for line in lines:
            differs = True
            click.echo(line)
    return errors.EXIT_NOT_FINE if differs else errors.EXIT_OK
