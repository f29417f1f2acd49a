"""Writes vmoor.yaml(5), as reStructuredText for rst2man, from the configuration's JSON Schema.

Usage: from_schema.py SCHEMA > vmoor.yaml.5.rst. The words are the schema's own descriptions:
nothing about a key is said in two places.
"""

# ruff: noqa: INP001 - a script of the build, in no package

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TYPES = {
    "string": "text",
    "integer": "whole number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
    "null": "nothing",
}

HEAD = """\
==========
vmoor.yaml
==========

--------------------------------
configuration of the vmoor agent
--------------------------------

:Manual section: 5
:Manual group: vmoor

SYNOPSIS
========

| /etc/vmoor/vmoor.yaml
| /etc/vmoor/conf.d/\\*.yaml

DESCRIPTION
===========

``vmoor.yaml`` is read first, when there is one, then the files of ``conf.d`` in byte order of
their names. Mappings merge; a scalar or a list of a later file replaces that of an earlier one.
A key that is not described here is an error, and so is a key that stands twice in one file.
Files are UTF-8, at most 1 MiB long, and hold no secret: they should be readable by all.

Durations are numbers with a unit: 500ms, 10s, 2m, 1h.

``vmoor check`` tells every problem with file and line. ``systemctl reload vmoor`` makes the
agent read the files again; when they are wrong, the accepted configuration runs on.

KEYS
====
"""

TAIL = """\
EXAMPLE
=======

::

    vault: {address: "https://vault.example:8200", auth: {method: approle, role_id: shop-web}}
    mesh: secret/vmoor/mesh-a
    workload: {namespace: shop, name: web, service_account: web}
    services:
      web: {port: 8080, unit: web.service, checks: [{http: /healthz}]}

SEE ALSO
========

**vmoor**\\(8)
"""


def main(schema_path: str) -> None:
    schema = json.loads(Path(schema_path).read_text("utf-8"))
    sys.stdout.write(HEAD + "\n")
    for path, key, required in keys(schema, schema, ""):
        sys.stdout.write(f"**{path}**\n{entry(schema, key, required=required)}\n")
    sys.stdout.write(TAIL)


def keys(root: Any, schema: Any, prefix: str) -> Iterator[tuple[str, Any, bool]]:
    """Every key below this schema: its path, its own schema, whether it is required."""
    for part in (schema, *schema.get("anyOf", ())):
        required = part.get("required", ())
        for name, key in part.get("properties", {}).items():
            path = f"{prefix}{name}"
            yield path, key, name in required
            yield from keys(root, key, f"{path}.")
        inside = part.get("additionalProperties")
        if isinstance(inside, dict) and "properties" in inside:
            yield from keys(root, inside, f"{prefix}NAME.")
        items = part.get("items", {})
        if "properties" in items:
            yield from keys(root, items, f"{prefix[:-1]}[].")


def entry(root: Any, key: Any, *, required: bool) -> str:
    facts = [kind(root, key)]
    if required:
        facts.append("required")
    if "default" in key:
        facts.append(f"default {json.dumps(key['default']).strip(chr(34))}")
    words = re.sub(r"`([^`]+)`", r"``\1``", key["description"].replace("*", "\\*"))
    return f"    {words} ({escaped(', '.join(facts))})\n"


def kind(root: Any, key: Any) -> str:
    if "$ref" in key:
        path = key["$ref"].split("/")[1:]
        return kind(root, functools.reduce(lambda at, part: at[part], path, root))
    if "anyOf" in key:
        return " or ".join(kind(root, branch) for branch in key["anyOf"])
    if "const" in key or "enum" in key:
        choices = key.get("enum", [key.get("const")])
        return " | ".join(json.dumps(choice).strip('"') for choice in choices)
    if "minimum" in key:
        return f"{key['minimum']} to {key['maximum']}"
    return "duration" if "x-unit" in key else TYPES[key["type"]]


def escaped(text: str) -> str:
    return re.sub(r"([*`|_])", r"\\\1", text)


if __name__ == "__main__":
    main(sys.argv[1])
