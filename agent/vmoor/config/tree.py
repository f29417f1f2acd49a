"""YAML files as trees that remember the file and line of each value.

Reads what YAML's safe subset can say as JSON and nothing more: no tags, no merge keys, no key
twice, and bounds on size, depth and expansion, so that no file can fill the memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Optional, Union

import yaml

from vmoor.config.problems import Problem, Where, about
from vmoor.errors import quoted

SIZE_LIMIT = 1 << 20  # bytes; the mesh facts with a large CA bundle are a quarter of it
NODE_LIMIT = 20_000  # values after aliases are expanded; a thousand services have 10 000
DEPTH_LIMIT = 40  # the schema needs 8; ProxyConfig is a mapping of anybody's depth

TAG = "tag:yaml.org,2002:"
NUMBERS = frozenset({TAG + "int", TAG + "float", TAG + "bool", TAG + "null"})
# A time stamp (2024-01-01) and "=" are text to us.
TEXTS = frozenset({TAG + "str", TAG + "timestamp", TAG + "value"})

# What PyYAML says, and what its author can do about it; the first that is contained counts.
SENTENCES = (
    ("'\\t'", "a tab; YAML is indented with spaces"),
    ("expected a single document", "a second document (---); one file holds one"),
    (
        "mapping values are not allowed",
        "a colon too many: check the indentation, or quote the value",
    ),
    ("could not find expected ':'", "a colon is missing after a key, or a quote is not closed"),
    ("did not find expected", "the indentation or a bracket does not fit what stands above"),
    ("expected <block end>", "the indentation or the quotes do not fit what stands above"),
    ("expected ',' or", "a bracket is not closed or a comma is missing"),
    ("unexpected end of stream", "a quote is not closed"),
    ("cannot start any token", "a character that YAML reserves: quote the value"),
    ("undefined alias", "an alias (*) without its anchor (&): quote the value if it is text"),
)


@dataclass(frozen=True)
class Node:
    """A value, and where it stands; `line` is its key's."""

    value: Any  # dict[str, Node], list[Node], or a scalar
    file: str
    line: int
    text: str = ""  # a scalar as it is written


class _Refused(Exception):
    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line
        self.words = words


class _Loader(yaml.SafeLoader):
    """Bounded while it composes: a deep or long file must not exhaust the stack or the time."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.nodes = 0

    def compose_node(
        self, parent: Optional[yaml.Node], index: Union[yaml.Node, int, None]
    ) -> Optional[yaml.Node]:
        self.depth += 1
        self.nodes += 1
        _bounded(self.depth, self.nodes, self.peek_event().start_mark.line + 1)  # type: ignore[no-untyped-call]
        try:
            return super().compose_node(parent, index)  # type: ignore[arg-type]
        finally:
            self.depth -= 1


def read(file: str, content: bytes) -> tuple[Optional[Node], tuple[Problem, ...]]:
    """The file's tree, None when it is empty or cannot be read; and its problems."""
    try:
        node, problems = _parse(file, content.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        words = f"byte 0x{content[e.start]:02x} is not UTF-8; save the file as UTF-8"
        return None, (Problem(file, line, words),)
    except _Refused as e:
        return None, (Problem(file, e.line, e.words),)
    except yaml.MarkedYAMLError as e:
        return None, (Problem(file, _line(e), _sentence(e)),)
    if node is not None and not isinstance(node.value, dict):
        words = "not a mapping: the file must be made of lines such as `vault: ...`"
        return None, (Problem(file, node.line, words),)
    return node, problems


def _parse(file: str, text: str) -> tuple[Optional[Node], tuple[Problem, ...]]:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as e:
        line = text[: e.position].count("\n") + 1
        words = f"the character 0x{ord(text[e.position]):02x} is not allowed in YAML; remove it"
        raise _Refused(line, words) from None
    grower = _Grower(file, loader)
    root = loader.get_single_node()
    node = None if root is None else grower.grow(root, root.start_mark.line + 1, (), 1)
    if node is not None and node.value is None:  # only `---` or `null`
        return None, ()
    return node, tuple(grower.problems)


def merge(base: Node, over: Node) -> Node:
    """Mappings merge; scalars and lists of the later file replace."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, node in over.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return replace(base, value=merged)


def plain(node: Node) -> Any:
    """The tree as JSON has it."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def find(node: Node, where: Where) -> Node:
    """The node at the end of the path, or the last one on the way that exists."""
    for part in where:
        inside = isinstance(node.value, dict) and part in node.value
        if not inside and not (isinstance(node.value, list) and isinstance(part, int)):
            break
        node = node.value[part]
    return node


class _Grower:
    """Turns PyYAML's nodes into ours. Counts every visit: an alias is grown each time."""

    def __init__(self, file: str, loader: _Loader) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._loader = loader
        self._count = 0

    def grow(self, node: yaml.Node, line: int, where: Where, depth: int) -> Node:
        self._count += 1
        _bounded(depth, self._count, line)
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            return Node(self._mapping(node, where, depth), self._file, line)
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            items = [
                self.grow(item, item.start_mark.line + 1, (*where, i), depth + 1)
                for i, item in enumerate(node.value)
            ]
            return Node(items, self._file, line)
        return Node(self._scalar(node, line, where), self._file, line, str(node.value))

    def _mapping(self, node: yaml.MappingNode, where: Where, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                words = "a key that is no word: a template {{ }} that was not filled in?"
                raise _Refused(line, about(where, words))
            if key_node.tag == TAG + "merge":
                raise _Refused(line, about(where, "merge keys (<<) are not known; write the keys"))
            key = str(key_node.value)
            child = self.grow(value_node, line, (*where, key), depth + 1)
            if key in found:
                words = (
                    f"stands here a second time, first in line {found[key].line}; merge the two"
                )
                self.problems.append(Problem(self._file, line, about((*where, key), words)))
            else:
                found[key] = child
        return found

    def _scalar(self, node: yaml.Node, line: int, where: Where) -> Any:
        if node.tag in TEXTS:
            return node.value
        if node.tag not in NUMBERS:
            tag = quoted(node.tag).replace(TAG, "!!")
            raise _Refused(line, about(where, f"the tag {tag} is not known; remove it"))
        try:
            value = self._loader.construct_object(node)
            json.dumps(value, allow_nan=False)
        except (ValueError, KeyError):
            words = "looks like a number but is none; quote it"
            raise _Refused(line, about(where, words)) from None
        return value


def _bounded(depth: int, count: int, line: int) -> None:
    if depth > DEPTH_LIMIT:
        raise _Refused(line, f"nested deeper than {DEPTH_LIMIT} levels")
    if count > NODE_LIMIT:
        raise _Refused(line, f"more than {NODE_LIMIT} values (aliases count each time)")


def _line(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _sentence(error: yaml.MarkedYAMLError) -> str:
    said = f"{error.problem} {error.context}"
    for part, sentence in SENTENCES:
        if part in said:
            return sentence
    return f"cannot be read as YAML: {quoted(error.problem)}"
