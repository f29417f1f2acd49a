"""Reads a JSON file of services, as sources.file names it, by the configuration's own rules.

Not for the daemon's own process, as `load`: it runs `python3 -m vmoor.config.services FILE`.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmoor.config import relations, tree, wording
from vmoor.config.problems import Finding, Problem
from vmoor.errors import EXIT_CONFIG, EXIT_OK, Misconfigured

TOLD_LIMIT = 10  # problems of one file
SERVICES_LIMIT = 1000  # each is an entry in the mesh
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def read(path: str) -> Mapping[str, Any]:
    """{"services": {NAME: {...}}}. Raises Misconfigured with every problem."""
    content = _content(path)
    try:
        json.loads(content, parse_constant=_no_number)
    except RecursionError as e:
        raise Misconfigured([f"{path}: nested too deep"]) from e
    except ValueError as e:  # also UnicodeDecodeError
        line = getattr(e, "lineno", 0)
        words = f"not JSON (was it written by halves?): {getattr(e, 'msg', e)}"
        raise Misconfigured([str(Problem(path, line, words))]) from e
    # JSON is YAML but for tabs, which it has between values only. The tree knows lines, and keys
    # that stand twice.
    node, problems = tree.read(path, content.replace(b"\t", b" "))
    if problems or node is None:
        raise Misconfigured([str(p) for p in problems] or [f"{path}: holds no services"])
    document = tree.plain(node)
    others = [key for key in document if key != "services"]
    if others or "services" not in document:
        words = f"must be one mapping 'services', has {', '.join(others) or 'nothing'}"
        raise Misconfigured([str(Problem(path, node.line, words))])
    found = _findings(document, node)
    if found:
        told = dict.fromkeys(
            str(Problem(path, tree.find(node, f.at).line, f.words)) for f in found
        )
        raise Misconfigured(list(told)[:TOLD_LIMIT])
    return {"services": document["services"]}


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
            kinds = [kind for kind in ("exec", "file") if kind in (check or ())]
            if kinds:
                yield Finding(at, f"{kinds[0]} is for the configuration's services only")
            http = (check or {}).get("http")
            if isinstance(http, dict) and http.get("host", "127.0.0.1") not in LOOPBACK:
                yield Finding((*at, "http", "host"), "only a loopback address is looked at here")


def _content(path: str) -> bytes:
    try:
        # Opening a pipe that nobody writes to would wait.
        with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                raise Misconfigured([f"{path}: is not a file"])
            content = f.read(tree.SIZE_LIMIT + 1)
    except OSError as e:
        raise Misconfigured([f"{path}: cannot be read: {(e.strerror or '').lower()}"]) from e
    if len(content) > tree.SIZE_LIMIT:
        raise Misconfigured([f"{path}: larger than 1 MiB"])
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def main(arguments: Sequence[str]) -> int:
    """The child of the daemon: prints {"document": ...} or {"problems": [...]}."""
    try:
        answer: Mapping[str, Any] = {"document": read(arguments[0])}
        code = EXIT_OK
    except Misconfigured as e:
        answer, code = {"problems": e.problems}, EXIT_CONFIG
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
