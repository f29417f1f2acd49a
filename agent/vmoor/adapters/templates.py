"""jinja2: mapping in, files out. For a child of the daemon (children.Renderer) and in the CLI.

An undefined variable is an error (StrictUndefined), never an empty string in Envoy's
configuration.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from vmoor.adapters.children import FOLDERS, NAMES
from vmoor.errors import LocalFault, quoted

# One that was started early costs 20 MB while the daemon waits for a Vault that is away.
UNASKED_S = 60


def render(parameters: Mapping[str, Any], folders: Sequence[str] = FOLDERS) -> Mapping[str, str]:
    """Each of NAMES from `NAME.j2`. Raises LocalFault naming the template and the line."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(list(folders)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - env and YAML, quoted by tojson
    )
    # jinja's own filter escapes for HTML: & would become \\u0026, valid but unreadable.
    environment.filters["tojson"] = lambda value: json.dumps(value, sort_keys=True)
    return {name: _one(environment, f"{name}.j2", parameters) for name in NAMES}


def _one(environment: jinja2.Environment, name: str, parameters: Mapping[str, Any]) -> str:
    try:
        return environment.get_template(name).render(p=parameters)
    except jinja2.TemplateSyntaxError as e:
        raise LocalFault(f"cannot render {e.filename or name}:{e.lineno}: {e.message}") from e
    except jinja2.TemplateNotFound as e:
        raise LocalFault(
            f"cannot render {name}: no such template", remedy="reinstall the package vmoor"
        ) from e
    except jinja2.UndefinedError as e:
        raise LocalFault(f"cannot render {name}: {quoted(e)}") from e


def main() -> int:
    """JSON parameters on stdin, JSON {name: text} on stdout; 1 with the reason on stderr."""
    signal.alarm(UNASKED_S)
    try:
        files = render(json.load(sys.stdin))
    except (LocalFault, ValueError) as e:
        sys.stderr.write(f"{e}\n")
        return 1
    json.dump(files, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
