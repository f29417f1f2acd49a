"""`vmoor check`: is the configuration right?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from vmoor.config.load import ROOT, load
from vmoor.errors import EXIT_CONFIG, Misconfigured


@click.command()
@click.option(
    "--config-dir",
    "folder",
    type=click.Path(path_type=Path),
    default=ROOT,
    show_default=True,
    help="The folder with vmoor.yaml and conf.d.",
)
@click.option("--json", "as_json", is_flag=True)
def check(folder: Path, *, as_json: bool) -> None:
    """Check the configuration; print every problem with file and line.

    Exit code 78 when there is one. Nothing is changed and nobody is asked.
    """
    try:
        loaded = load(folder)
    except Misconfigured as e:
        if as_json:
            click.echo(json.dumps({"ok": False, "problems": list(e.problems)}, indent=2))
        else:
            click.echo("\n".join(e.problems))
        raise SystemExit(EXIT_CONFIG) from None
    services = [service.name for service in loaded.settings.services]
    if as_json:
        files = list(loaded.files)
        click.echo(json.dumps({"ok": True, "files": files, "services": services}, indent=2))
        return
    count = f"{len(loaded.files)} file{'' if len(loaded.files) == 1 else 's'}"
    click.echo(f"configuration ok: {count}, services: {', '.join(services) or 'none'}")
