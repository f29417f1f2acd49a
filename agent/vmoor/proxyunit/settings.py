"""What root's hook takes from /etc/vmoor, and nothing else of it.

Not the agent's loader: this runs as root, so it believes only files that root alone could have
written, needs no schema, and checks the type of each value that becomes part of a command.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import yaml

from vmoor.proxyunit import trusted

# No tproxy: there Istio's own rules lead Envoy's connections to the application back to Envoy.
MODES = ("redirect", "none")
IPV6 = ("open", "closed")
FOLDER = Path("/etc/vmoor")


class Unusable(Exception):
    """The message names the file or the key."""


@dataclass(frozen=True)
class Settings:
    mode: str = "redirect"
    dns_capture: bool = True
    ipv6: str = "open"
    inbound_ports: tuple[int, ...] = ()  # never captured
    outbound_ports: tuple[int, ...] = ()
    cidrs: tuple[str, ...] = ()
    pilot_agent: str = "/usr/local/bin/pilot-agent"


def load(tell: Callable[[str], object], folder: Path = FOLDER) -> Settings:
    """Raises Unusable for what makes no sense; a file that is not root's own is skipped."""
    merged: Mapping[str, Any] = {}
    for path in paths(folder):
        try:
            trusted.check(str(path))
        except trusted.Untrusted as e:
            tell(f"skipped {path}: {e}")
            continue
        merged = merge(merged, parsed(path))
    return settle(merged)


def paths(folder: Path) -> list[Path]:
    """vmoor.yaml, then conf.d in byte order: what stands later wins."""
    main, drop_ins = folder / "vmoor.yaml", folder / "conf.d"
    found = drop_ins.glob("*.yaml") if drop_ins.is_dir() else ()
    # Hidden ones are what editors leave behind; the agent's loader doesn't read them either.
    shown = (path for path in found if not path.name.startswith("."))
    return [*([main] if main.exists() else []), *sorted(shown, key=os.fsencode)]


def parsed(path: Path) -> Mapping[str, Any]:
    """Raises Unusable."""
    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, UnicodeError, yaml.YAMLError) as e:
        raise Unusable(f"cannot read {path}: {str(e).splitlines()[0]}") from e
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Unusable(f"{path} is not a mapping")
    return content


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Mapping[str, Any]:
    """Mappings merge, scalars and lists replace."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merge(old, value) if both and isinstance(old, dict) else value
    return result


def settle(merged: Mapping[str, Any]) -> Settings:
    interception = _mapping(merged, "interception")
    exclude = _mapping(interception, "exclude")
    default = Settings()
    mode = interception.get("mode", default.mode)
    if mode not in MODES:
        raise Unusable(f"interception.mode is none of {', '.join(MODES)}")
    dns = interception.get("dns_capture", default.dns_capture)
    if not isinstance(dns, bool):
        raise Unusable("interception.dns_capture is neither true nor false")
    ipv6 = interception.get("ipv6", default.ipv6)
    if ipv6 not in IPV6:
        raise Unusable(f"interception.ipv6 is none of {', '.join(IPV6)}")
    pilot_agent = _mapping(merged, "proxy").get("pilot_agent", default.pilot_agent)
    if not isinstance(pilot_agent, str) or not pilot_agent.startswith("/"):
        raise Unusable("proxy.pilot_agent is not an absolute path")
    return Settings(
        mode=mode,
        dns_capture=dns,
        ipv6=ipv6,
        inbound_ports=_ports(exclude, "inbound_ports"),
        outbound_ports=_ports(exclude, "outbound_ports"),
        cidrs=_cidrs(exclude),
        pilot_agent=pilot_agent,
    )


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unusable(f"{key} is not a mapping")
    return value


def _list(parent: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise Unusable(f"interception.exclude.{key} is not a list")
    return value


def _ports(exclude: Mapping[str, Any], key: str) -> tuple[int, ...]:
    ports = _list(exclude, key)
    for port in ports:
        if type(port) is not int or not 1 <= port <= 65535:  # noqa: PLR2004 - bool is an int, too
            raise Unusable(f"interception.exclude.{key}: {port!r} is not a port")
    return tuple(ports)


def _cidrs(exclude: Mapping[str, Any]) -> tuple[str, ...]:
    try:
        return tuple(
            str(ipaddress.ip_network(str(each), strict=False)) for each in _list(exclude, "cidrs")
        )
    except ValueError as e:
        raise Unusable(f"interception.exclude.cidrs: {e}") from e
