from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from vmoor.config import wording

SCHEMA = json.loads(wording.SCHEMA.read_text("utf-8"))
MAN = Path(__file__).parents[3] / "packaging" / "man" / "from_schema.py"


def mappings(schema: Any) -> Iterator[Any]:
    """Every schema with properties, at any depth."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield schema
        for inside in schema.values():
            yield from mappings(inside)
    elif isinstance(schema, list):
        for inside in schema:
            yield from mappings(inside)


def test_the_schema_is_one() -> None:
    """For 2020-12, and for the newest draft that EL 9's jsonschema knows."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_key_is_described() -> None:
    """A key without a description would be missing in the man page."""
    for mapping in mappings(SCHEMA):
        for name, key in mapping["properties"].items():
            assert key.get("description", "").endswith("."), name


def test_every_required_key_has_an_example() -> None:
    """The line to add for a missing key comes from its example."""
    for mapping in mappings(SCHEMA):
        for name in mapping.get("required", ()):
            assert mapping["properties"][name]["examples"], name


def test_man_page_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The man page is made from the schema alone, and complete."""
    runpy.run_path(str(MAN))["main"](str(wording.SCHEMA))
    page = capsys.readouterr().out
    for mapping in mappings(SCHEMA):
        for name in mapping["properties"]:
            assert f"{name}**\n" in page
    assert "**services.NAME.checks[].http.path**" in page
