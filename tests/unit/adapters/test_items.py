from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vmoor.adapters import items
from vmoor.adapters.items import Items
from vmoor.errors import LocalFault

# What could be taken for a part of the list around it.
THINGS = [
    {"metadata": {"name": "a"}, "spec": {"items": [1, {"]": "}"}]}},
    {"text": 'a "items":[ in a text, ], },{ and \\ "', "é": "ü€😀"},
    {},
]
FORMS = [
    lambda things: json.dumps({"kind": "List", "metadata": {}, "items": things}, indent=2),
    lambda things: json.dumps(
        {"apiVersion": "v1", "items": things, "metadata": {"resourceVersion": "1"}},
        separators=(",", ":"), ensure_ascii=False,
    ),
]  # fmt: skip


def read(pieces: list[bytes]) -> list[Any]:
    got: list[Any] = []
    reader = Items(got.append)
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    return got


@given(st.sampled_from(FORMS), st.lists(st.sampled_from(THINGS)), st.lists(st.integers(0, 400)))
def test_it_reads_a_list_however_it_is_cut(form: Any, things: list[Any], cuts: list[int]) -> None:
    """Compact or not, wherever a piece ends: amid an object, a character, a brace."""
    content = form(things).encode()
    edges = [0, *sorted(cuts), len(content)]
    assert read([content[a:b] for a, b in zip(edges, edges[1:])]) == things


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_list_that_is_cut_short_is_none(cut: int) -> None:
    """Half of a fleet would be taken for all of it."""
    content = b'{"items":[{"a":1},{"a":2}]}'
    with pytest.raises(LocalFault, match="its end is missing"):
        read([content[: -2 - cut % 20]])


@pytest.mark.parametrize("content", [b"", b"no JSON", b'{"kind":"Status"}'])
def test_what_is_no_list_is_told(content: bytes) -> None:
    """Nothing of it is taken."""
    with pytest.raises(LocalFault):
        read([content])


def test_an_object_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit, not when memory is gone."""
    monkeypatch.setattr(items, "LIMIT", 100)
    with pytest.raises(LocalFault, match="without an end"):
        read([b'{"items":[{"a":"' + b"x" * 200])


@pytest.mark.parametrize("item", ["1", '"a"', "[]", "null", "[" * 100_000])
def test_an_item_that_is_no_object_is_refused(item: str) -> None:
    """Whatever a server sends ends in words, not in a traceback."""
    with pytest.raises(LocalFault, match="cannot read a list"):
        read([b'{"items":[' + item.encode() + b"]}"])
