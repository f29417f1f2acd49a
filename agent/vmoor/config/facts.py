"""The mesh facts, checked by hand: they come from Vault while the daemon runs, and the daemon
does not carry a schema validator. Keys that this version does not know are left alone, so that
a newer `vmoor admin publish` does not stop older agents.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

from vmoor.config.problems import Where, dotted, shown
from vmoor.errors import Misconfigured
from vmoor.model.facts import IstioFacts, KubernetesFacts, MeshFacts

VERSION = 1
REMEDY = "vmoor admin publish writes them, vmoor admin publish --check compares"
MISSING = "is missing"

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_DER_SEQUENCE = b"\x30"  # the first byte of every certificate


def facts_from(mapping: Mapping[str, Any], source: str) -> MeshFacts:
    """The facts; `source` names where they come from. Raises Misconfigured with every problem."""
    found = problems(mapping)
    if found:
        raise Misconfigured(
            [f"{source}: {dotted(at)}: {words}" for at, words in found], remedy=REMEDY
        )
    kubernetes, istio = mapping["kubernetes"], mapping["istio"]
    return MeshFacts(
        KubernetesFacts(
            server=tuple(kubernetes["server"]),
            ca=kubernetes["ca"],
            **_given(kubernetes, ("vault_mount", "vault_role")),
        ),
        IstioFacts(
            discovery=tuple(istio["discovery"]),
            san=istio["san"],
            root_ca=istio["root_ca"],
            **_given(istio, tuple(key.name for key in ISTIO[3:])),
        ),
    )


def problems(mapping: Mapping[str, Any]) -> tuple[tuple[Where, str], ...]:
    """Each problem: the keys that lead to it, and the words."""
    found: list[tuple[Where, str]] = []
    if mapping.get("version") != VERSION or isinstance(mapping.get("version"), bool):
        version = mapping.get("version")
        words = f"{shown(version)} is not a version that this agent knows ({VERSION})"
        found.append((("version",), MISSING if version is None else words))
    for part, keys in (("kubernetes", KUBERNETES), ("istio", ISTIO)):
        value = mapping.get(part)
        if not isinstance(value, Mapping):
            words = MISSING if value is None else f"{shown(value)} is not a mapping"
            found.append(((part,), words))
            continue
        for key in keys:
            words = _refusal(key, value.get(key.name))
            if words:
                found.append(((part, key.name), words))
    return tuple(found)


class _Key(NamedTuple):
    """A key of the facts; `refuse` tells what is wrong with a value, "" when nothing is."""

    name: str
    refuse: Callable[[Any], str]
    required: bool = False


def _refusal(key: _Key, value: Any) -> str:
    if value is None:
        return MISSING if key.required else ""
    return key.refuse(value)


def _given(mapping: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: mapping[name] for name in names if mapping.get(name) is not None}


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else f"{shown(value)} is not text"


def _word(value: Any) -> str:
    if isinstance(value, str) and value.strip() == value != "":
        return ""
    return f"{shown(value)} is not a name"


def _mapping(value: Any) -> str:
    return "" if isinstance(value, Mapping) else f"{shown(value)} is not a mapping"


def _each(refuse: Callable[[Any], str]) -> Callable[[Any], str]:
    def whole(value: Any) -> str:
        if not isinstance(value, (list, tuple)):
            return f"{shown(value)} is not a list"
        if not value:
            return "is empty"
        return next((words for words in map(refuse, value) if words), "")

    return whole


def refuse_server(value: Any) -> str:
    """What is wrong with the URL of an API server, "" = nothing."""
    wrong = f"{shown(value)} is not a URL such as https://198.18.0.1:6443"
    if not isinstance(value, str):
        return wrong
    parts = _split(value)
    if parts is None or not parts[1]:
        return wrong
    return "" if parts[0] == "https" else f"{wrong}: a token must not travel in the clear"


def _address(value: Any) -> str:
    wrong = f"{shown(value)} is not HOST:PORT such as 198.18.0.1:15012"
    if not isinstance(value, str) or "/" in value:
        return wrong
    parts = _split(f"tcp://{value}")
    return "" if parts is not None and parts[1] and parts[2] else wrong


def _split(url: str) -> Optional[tuple[str, str, int]]:
    """Scheme, host and port (0 = none); None when it is no URL."""
    try:
        parts = urlsplit(url)
        port = parts.port or 0
    except ValueError:
        return None
    if parts.username is not None or re.search(r"\s", url):
        return None
    return parts.scheme, parts.hostname or "", port


def _pem(value: Any) -> str:
    if not isinstance(value, str):
        return f"{shown(value)} is not a PEM bundle"
    if "PRIVATE KEY-----" in value:
        return "holds a private key: replace that key, and publish certificates only"
    bodies = _CERTIFICATE.findall(value)
    if not bodies or value.count("-----BEGIN ") != len(bodies):
        return "is not a PEM bundle of certificates (-----BEGIN CERTIFICATE----- ...)"
    return next((words for words in map(_body, bodies) if words), "")


def _body(body: str) -> str:
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except (binascii.Error, ValueError):
        der = b""
    return "" if der.startswith(_DER_SEQUENCE) else "holds a certificate that is cut or changed"


KUBERNETES = (
    _Key("server", _each(refuse_server), required=True),
    _Key("ca", _pem, required=True),
    _Key("vault_mount", _word),
    _Key("vault_role", _text),
)
ISTIO = (
    _Key("discovery", _each(_address), required=True),
    _Key("san", _word, required=True),
    _Key("root_ca", _pem, required=True),
    _Key("vault_role", _text),
    _Key("revision", _text),
    _Key("mesh_id", _text),
    _Key("cluster", _word),
    _Key("network", _text),
    _Key("trust_domain", _word),
    _Key("proxy_config", _mapping),
)
