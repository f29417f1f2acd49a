"""Judges a JSON document of services, of sources.file or exec, by the configuration's rules.

Not for the daemon's own process, as `load`: it runs `python3 -m vmoor.config.services FILE`, or
with `- NAME` for a document that comes on stdin.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from vmoor.config import relations, tree, wording
from vmoor.config.problems import Finding, Problem
from vmoor.errors import EXIT_CONFIG, EXIT_OK, Misconfigured

TOLD_LIMIT = 10  # problems of one file
SERVICES_LIMIT = 1000  # each is an entry in the mesh
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def read(path: str) -> Mapping[str, Any]:
    """{"services": {NAME: {...}}}. Raises Misconfigured with every problem."""
    try:
        # Opening a pipe that nobody writes to would wait.
        with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Misconfigured([f"{path}: is not a file"])
            return judge(path, file)
    except OSError as e:
        raise Misconfigured([f"{path}: cannot be read: {(e.strerror or '').lower()}"]) from e


def judge(name: str, file: BinaryIO) -> Mapping[str, Any]:
    """The same of what can be read here; `name` is how the problems call it."""
    content = file.read(tree.SIZE_LIMIT + 1)
    if len(content) > tree.SIZE_LIMIT:
        raise Misconfigured([f"{name}: larger than 1 MiB"])
    document = _json(name, content)
    # JSON is YAML but for tabs, which it has between values only. The tree knows lines, and keys
    # that stand twice; values are JSON's, whose \\ud83d\\ude00 is one character.
    node, problems = tree.read(name, content.replace(b"\t", b" "))
    if problems or node is None:
        raise Misconfigured([str(p) for p in problems] or [f"{name}: holds no services"])
    others = [key for key in document if key != "services"]
    if others or "services" not in document:
        words = f"must be one mapping 'services', has {', '.join(others) or 'nothing'}"
        raise Misconfigured([str(Problem(name, node.line, words))])
    found = _findings(document, node)
    if found:
        told = dict.fromkeys(
            str(Problem(name, tree.find(node, f.at).line, f.words)) for f in found
        )
        raise Misconfigured(list(told)[:TOLD_LIMIT])
    return {"services": document["services"]}


def _json(name: str, content: bytes) -> Any:
    try:
        document = json.loads(content.decode("utf-8-sig"), parse_constant=_no_number)
        json.dumps(document, ensure_ascii=False).encode()  # what cannot be sent is no text
    except RecursionError as e:
        raise Misconfigured([f"{name}: nested too deep"]) from e
    except UnicodeEncodeError as e:
        raise Misconfigured([f"{name}: holds a half of a character, such as \\ud800"]) from e
    except ValueError as e:  # also UnicodeDecodeError
        line = getattr(e, "lineno", 0)
        words = f"not JSON (is it whole?): {getattr(e, 'msg', e)}"
        raise Misconfigured([str(Problem(name, line, words))]) from e
    return document


def _findings(document: Any, node: tree.Node) -> Sequence[Finding]:
    # The file lacks the keys of a whole configuration.
    found = [f for f in wording.findings(document, node) if f.at]
    sound = wording.sound(document, found)
    return [*found, *relations.findings(sound), *_beyond(sound.get("services", {}))]


def _beyond(services: Mapping[str, Any]) -> Iterator[Finding]:
    """What its writer, who is not root, may not have the agent do for him."""
    if len(services) > SERVICES_LIMIT:
        yield Finding(("services",), f"{len(services)} services, at most {SERVICES_LIMIT} count")
    for name, service in services.items():
        for i, check in enumerate(service.get("checks", ())):
            at = ("services", name, "checks", i)
            kinds = [kind for kind in ("exec", "file", "ttl") if kind in (check or ())]
            if kinds:
                yield Finding(at, f"{kinds[0]} is for the configuration's services only")
            http = (check or {}).get("http")
            if isinstance(http, dict) and http.get("host", "127.0.0.1") not in LOOPBACK:
                yield Finding((*at, "http", "host"), "only a loopback address is looked at here")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def main(arguments: Sequence[str]) -> int:
    """The child of the daemon: prints {"document": ...} or {"problems": [...]}."""
    path, name = arguments[0], arguments[-1]
    try:
        found = judge(name, sys.stdin.buffer) if path == "-" else read(path)
        answer: Mapping[str, Any] = {"document": found}
        code = EXIT_OK
    except Misconfigured as e:
        answer, code = {"problems": e.problems}, EXIT_CONFIG
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
