"""`vmoor check`: is the configuration right?"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import click

from vmoor.cli.lacking import lacking
from vmoor.config import services
from vmoor.config.load import ROOT, load
from vmoor.config.settings import Sources
from vmoor.errors import EXIT_CONFIG, EXIT_OK, Misconfigured


@click.command()
@click.option(
    "--config-dir",
    "folder",
    type=click.Path(path_type=Path),
    default=ROOT,
    show_default=True,
    help="The folder with vmoor.yaml and conf.d.",
)
@click.option(
    "--services-file",
    "path",
    metavar="FILE",
    help="Check this document of services instead, as sources.file would; - reads stdin.",
)
@click.option("--json", "as_json", is_flag=True, help="The same, for programs.")
def check(folder: Path, path: Optional[str], *, as_json: bool) -> None:
    """Check the configuration; print every problem with file and line.

    And every source that is configured. Of /etc/vmoor also, as warnings, what this machine lacks:
    units, groups, programs. Exit code 78 when there is a problem. Nothing is changed.
    """
    try:
        lines, answer = _configuration(folder) if path is None else _document(path)
    except Misconfigured as e:
        lines, answer = e.problems, {"ok": False, "problems": list(e.problems)}
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(lines))
    raise SystemExit(EXIT_OK if answer["ok"] else EXIT_CONFIG)


def _configuration(folder: Path) -> tuple[Sequence[str], Mapping[str, Any]]:
    loaded = load(folder)
    names = [service.name for service in loaded.settings.services]
    sources = dict(_sources(loaded.settings.sources))
    count = f"{len(loaded.files)} file{'' if len(loaded.files) == 1 else 's'}"
    lines = [f"configuration ok: {count}, services: {', '.join(names) or 'none'}"]
    lines += [f"source {name}: {words}" for name, words in sources.items()]
    warnings = lacking(loaded.settings) if folder == ROOT else []
    lines += [f"warning: {warning}" for warning in warnings]
    found = {"files": list(loaded.files), "services": names, "sources": sources}
    return lines, {"ok": True, **found, "warnings": warnings}


def _document(path: str) -> tuple[Sequence[str], Mapping[str, Any]]:
    read = services.judge("stdin", sys.stdin.buffer) if path == "-" else services.read(path)
    names = sorted(read["services"])
    lines = [f"services ok: {', '.join(names) or 'none'}"]
    return lines, {"ok": True, "services": names}


def _sources(sources: Sources) -> Iterator[tuple[str, str]]:
    """Each that is configured, in the order of their precedence, and what it is."""
    if sources.systemd is not None:
        yield "systemd", f"units {', '.join(sources.systemd)}"
    if sources.consul is not None:
        tag = sources.consul.require_tag
        yield "consul", f"{sources.consul.address}, {f'tag {tag}' if tag else 'all services'}"
    if sources.file is not None:
        yield "file", sources.file.path
    if sources.exec is not None:
        yield "exec", f"{shlex.join(sources.exec.command)}, every {sources.exec.period:g}s"
    if sources.sockets is not None:
        ports = [
            f"{port} {service.name}"
            for service in sources.sockets
            for port in service.ports.values()
        ]
        yield "sockets", f"ports {', '.join(ports)}"
