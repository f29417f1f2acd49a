"""What the schema finds, in words for people.

The words are in the schema itself, beside what they describe: `x-says` completes "... is not",
`examples` gives the line to add for a missing key, `x-unit` the unit that a number lacks, and
`x-masked` marks a value that is not shown.
"""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from vmoor.config import tree
from vmoor.config.problems import Finding, Where, about, dotted, listed, nearest, shown

SCHEMA = Path(__file__).with_name("schema.json")
NAMES = {
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}


def _pattern(validator: Any, pattern: str, instance: Any, _: Any) -> Iterator[Any]:
    # jsonschema searches, and Python's $ allows a newline after it.
    if validator.is_type(instance, "string") and not re.fullmatch(pattern, instance):
        yield jsonschema.ValidationError("pattern")


def _validator() -> Any:
    # EL 9's jsonschema 3.2 ends at draft 7; the schema keeps to what both know.
    newest = getattr(jsonschema, "Draft202012Validator", jsonschema.Draft7Validator)
    checker = newest.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    )
    extend: Any = jsonschema.validators.extend
    ours = extend(newest, {"pattern": _pattern}, type_checker=checker)
    return ours(_schema())


@functools.lru_cache(maxsize=1)
def _schema() -> Any:
    return json.loads(SCHEMA.read_text("utf-8"))


def findings(document: Any, root: tree.Node) -> tuple[Finding, ...]:
    """Everything in which the document differs from the schema."""
    found = (f for error in _validator().iter_errors(document) for f in _say(error, root))
    return tuple(dict.fromkeys(found))


def sound(document: Any, found: Iterable[Finding]) -> Any:
    """The document without what was found, so that further rules meet only valid values.

    What is taken out of a list leaves None in its place.
    """
    rest = copy.deepcopy(document)
    for finding in found:
        if finding.missing or not finding.at:
            continue
        parent = rest
        try:
            for part in finding.at[:-1]:
                parent = parent[part]
            last = finding.at[-1]
            if isinstance(last, int):
                parent[last] = None
            else:
                del parent[last]
        except (KeyError, IndexError, TypeError):
            continue  # went with what is above it
    return rest


def _say(error: Any, root: tree.Node) -> Iterator[Finding]:
    where: Where = tuple(error.absolute_path)
    if "propertyNames" in list(error.absolute_schema_path)[-2:]:
        at = (*where, error.instance)
        yield Finding(at, about(at, f"{shown(error.instance)} is not {_says(error.schema)}"))
    elif error.validator == "additionalProperties":
        yield from _unknown(error, where)
    elif error.validator == "required":
        yield from _missing(error, where)
    elif error.validator == "anyOf":
        yield from _any_of(error, root, where)
    elif error.validator == "oneOf":
        yield from _one_of(error, where)
    else:
        yield Finding(where, about(where, _wrong(error, tree.find(root, where).text)))


def _unknown(error: Any, where: Where) -> Iterator[Finding]:
    known = list(error.schema["properties"])
    schema = _schema()
    for key in error.instance:
        if key in known:
            continue
        homes, near = list(_homes(schema, key, ())), nearest(key, known)
        if len(homes) == 1:
            hint = f"it belongs in {dotted(homes[0]) or 'the top level'}"
        elif near:
            hint = f"did you mean '{near}'?"
        else:
            hint = f"known here: {', '.join(sorted(known))}"
        yield Finding((*where, key), about(where, f"unknown key {shown(key)}, {hint}"))


def _homes(schema: Mapping[str, Any], key: str, where: Where) -> Iterator[Where]:
    """The mappings in which the schema knows this key."""
    for part in (schema, *schema.get("anyOf", ())):
        if key in part.get("properties", ()):
            yield where
        for name, inside in part.get("properties", {}).items():
            # The keys of mesh, tls and grpc are common words, those of sources are services'.
            if name not in ("mesh", "sources", "tls", "grpc"):
                yield from _homes(inside, key, (*where, name))
        for step, below in (("NAME", "additionalProperties"), (0, "items")):
            if isinstance(part.get(below), Mapping):
                yield from _homes(part[below], key, (*where, step))


def _missing(error: Any, where: Where) -> Iterator[Finding]:
    for key in error.validator_value:
        if key not in error.instance:
            example = error.schema["properties"][key]["examples"][0]
            words = f"'{key}' is missing, add `{key}: {_flow(example)}`"
            yield Finding((*where,), about(where, words), missing=True)


def _any_of(error: Any, root: tree.Node, where: Where) -> Iterator[Finding]:
    """What is wrong with the branch that was meant: the one of the value's own type."""
    branches: dict[int, list[Any]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for inners in branches.values():
        if not any(i.validator in ("type", "const") and not i.relative_path for i in inners):
            for inner in inners:
                yield from _say(inner, root)
            return
    yield Finding(where, about(where, _wrong(error, tree.find(root, where).text)))


def _one_of(error: Any, where: Where) -> Iterator[Finding]:
    groups = [branch["required"] for branch in error.validator_value]
    if not isinstance(error.instance, Mapping):
        return  # its type is told already
    present = [group for group in groups if any(key in error.instance for key in group)]
    if len(present) > 1:
        both = listed([group[0] for group in present], "and")
        at = (*where, present[-1][0])
        yield Finding(at, about(where, f"has {both}; keep one of them"))
        return
    names = [listed(group, "and") for group in groups]
    yield Finding(where, about(where, f"needs {listed(names)}"), missing=True)


def _wrong(error: Any, text: str) -> str:
    value, schema = error.instance, error.schema
    says = _says(schema)
    if value is None:
        return f"has no value: give it {says}, or remove the line"
    if error.validator in ("minProperties", "minItems"):
        return f"is empty: give it {says}"
    seen = "the value (not shown)" if schema.get("x-masked") else shown(value, text)
    wanted = schema.get("type", "")
    if isinstance(value, str) and _would_be(wanted, value):
        return f"{seen} is text, not {says}: remove the quotes"
    if wanted == "string" and "x-unit" in schema and isinstance(value, (int, float)):
        return f"{seen} is not {says}, write {text}{schema['x-unit']}"
    if wanted == "string" and _lacks_quotes(value):
        if isinstance(value, dict):
            seen = text = f"{{{next(iter(value))}}}"
        return f'{seen} is {_kind(value)}, not {says}: write it in quotes, "{text}"'
    near = nearest(value, schema.get("enum", ())) if isinstance(value, str) else ""
    return f"{seen} is not known, did you mean '{near}'?" if near else f"{seen} is not {says}"


def _lacks_quotes(value: Any) -> bool:
    """Also {zone}, which YAML takes for a mapping without a value."""
    braced = isinstance(value, dict) and list(value.values()) == [None]
    return braced or isinstance(value, (bool, int, float))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a mapping" if isinstance(value, dict) else "a number"


def _would_be(wanted: str, text: str) -> bool:
    """Whether it is only the quotes that make a text of it."""
    if wanted == "boolean":
        return text in ("true", "false")
    return wanted == "integer" and re.fullmatch(r"0|[1-9][0-9]*", text) is not None


def _says(schema: Mapping[str, Any]) -> str:
    """What the value should have been."""
    if "x-says" in schema:
        return str(schema["x-says"])
    if "enum" in schema:
        choices = [str(choice) for choice in schema["enum"]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if "const" in schema:
        return json.dumps(schema["const"])
    return NAMES[schema.get("type", "string")]


def _flow(example: Any) -> str:
    """A value as people write it in one line of YAML."""
    if isinstance(example, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(value)}" for key, value in example.items()) + "}"
    if isinstance(example, list):
        return "[" + ", ".join(_flow(value) for value in example) + "]"
    text = str(example)
    return json.dumps(text) if re.search(r"[:#{}\[\],]", text) else text
