"""What a unit file says of its services: lines that systemd ignores, because they begin with X-.

    [Service]
    X-Vmoor-Service=web port=8080 http=/healthz weight=5 label.tier=front

systemd.unit(5): unknown sections and options with the prefix X- are for other programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vmoor.config import build, labels
from vmoor.errors import quoted
from vmoor.model.service import DNS_LABEL, PROXY_PORTS, Service

KEY = "X-Vmoor-Service"
_SECTIONS = ("[Unit]", "[Service]")
_NUMBER = re.compile(r"[1-9][0-9]{0,4}")
_LARGEST = 65535  # of a port and of a weight
_KNOWN = "port=N, port.NAME=N, http=PATH, weight=N, label.KEY=VALUE"


class _Wrong(Exception):
    pass


class Text(NamedTuple):
    """A unit file or a drop-in."""

    file: str
    text: str


def services(unit: str, texts: Sequence[Text]) -> tuple[tuple[Service, ...], tuple[str, ...]]:
    """What the unit's files declare, in systemd's order of reading, and "FILE:LINE: problem"."""
    found: list[Service] = []
    problems: list[str] = []
    for text in texts:
        for number, section, value in _lines(text.text):
            if section not in _SECTIONS:
                problems.append(
                    f"{text.file}:{number}: {KEY} belongs in [Unit] or [Service], "
                    f"not in {quoted(section) or 'no section'}"
                )
            elif not value:  # as with systemd's own lists
                found.clear()
            else:
                try:
                    found.append(_service(unit, value))
                except _Wrong as e:
                    problems.append(f"{text.file}:{number}: {e}")
    return tuple(found), tuple(problems)


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, section and value of each marker; a backslash goes on in the next line."""
    section, begun, whole = "", 0, ""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith(("#", ";")):  # also between continued lines
            continue
        begun = begun if whole else number
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1] + " "
            continue
        key, is_option, value = whole.partition("=")
        if whole.startswith("["):
            section = whole
        elif is_option and key.strip() == KEY:
            yield begun, section, value.strip()
        whole = ""


def _service(unit: str, value: str) -> Service:
    name, *words = value.split()
    if not DNS_LABEL.fullmatch(name):
        raise _Wrong(f"'{quoted(name)}' is not a service name, write {KEY}=web port=8080")
    given: dict[str, Any] = {"unit": unit, "ports": {}, "labels": {}, "checks": []}
    for word in words:
        _take(given, word)
    ports = given["ports"]
    if not ports:
        raise _Wrong(f"service {name} has no port, write {KEY}={name} port=8080")
    if given["checks"] and build.port_of({}, ports) is None:
        raise _Wrong(f"service {name} has several ports: name that of the http check port.http=N")
    return build.service(name, given, "systemd")


def _take(given: dict[str, Any], word: str) -> None:
    key, equals, value = word.partition("=")
    kind, dot, name = key.partition(".")
    if not equals:
        raise _Wrong(f"'{quoted(word)}' is not KEY=VALUE, known: {_KNOWN}")
    if kind == "port" and (not dot or DNS_LABEL.fullmatch(name)):
        port = _number(value)
        if port in PROXY_PORTS:
            raise _Wrong(f"{port} is a port of the proxy itself; choose another")
        given["ports"][name or build.DEFAULT_PORT_NAME] = port
    elif key == "http" and value.startswith("/"):
        given["checks"].append({"http": value})
    elif key == "weight":
        given["weight"] = _number(value)
    elif kind == "label" and dot:
        refusal = labels.template_refusal(name, value)
        if refusal:
            raise _Wrong(f"label {quoted(name)}: {refusal}")
        given["labels"][name] = value
    else:
        raise _Wrong(f"'{quoted(word)}' is not known, known: {_KNOWN}")


def _number(value: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > _LARGEST:
        raise _Wrong(f"'{quoted(value)}' is not a number from 1 to {_LARGEST}")
    return int(value)
