"""What the schema cannot say: rules between keys, and about what values mean outside.

Meets only values that the schema accepts, but any of them may be missing; a list may hold None
where a wrong value stood.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from vmoor.config import build, facts, labels
from vmoor.config.durations import seconds
from vmoor.config.listen import HIGHEST_PORT, listen_at
from vmoor.config.problems import Finding, Where, about, listed, shown
from vmoor.config.settings import CLOUD_PUBLIC
from vmoor.model.machine import GENERIC_NAMES
from vmoor.model.service import PROXY_PORTS

SHORTEST_PERIOD_S = 0.2  # five probes a second; below that the probes are the load
SHORTEST_EXEC_S = 5.0  # a program starts each time, and what it changes are services, not health
SHORTEST_TTL_S = 1.0
LONGEST_DRAIN_S = 30.0  # TimeoutStopSec=45s of vmoor.service holds it and all that is around it
LOOKS = ("period", "timeout", "initial_delay", "failure_threshold", "success_threshold")


def findings(document: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _vault(document.get("vault", {}))
    yield from _mesh(document.get("mesh"))
    yield from _vm(document.get("vm", {}))
    yield from _labels(("vm", "labels"), document.get("vm", {}))
    yield from _common_labels(("workload", "labels"), document.get("workload", {}))
    yield from _consul(document.get("sources", {}).get("consul", {}))
    yield from _exec(document.get("sources", {}).get("exec", {}))
    services = document.get("services", {})
    yield from _ports(services)
    for name, service in services.items():
        yield from _service(("services", name), service)
    yield from _allowed(document.get("sources", {}).get("sockets", {}).get("allow", {}))
    yield from _drain(document.get("drain", {}).get("timeout"))
    for name, command in document.get("hooks", {}).items():
        yield from _program(("hooks", name), command)
    yield from _metrics(document.get("metrics", {}).get("listen"), services)
    cidrs = document.get("interception", {}).get("exclude", {}).get("cidrs", ())
    for i, cidr in enumerate(cidrs):
        if cidr is not None:
            yield from _cidr(("interception", "exclude", "cidrs", i), cidr)


def _finding(at: Where, words: str) -> Finding:
    return Finding(at, about(at, words))


def _drain(timeout: Optional[str]) -> Iterator[Finding]:
    if timeout is not None and seconds(timeout) > LONGEST_DRAIN_S:
        words = f"{timeout} is longer than systemd waits for a stop (at most {LONGEST_DRAIN_S:g}s)"
        yield _finding(("drain", "timeout"), words)


def _metrics(listen: Optional[str], services: Mapping[str, Any]) -> Iterator[Finding]:
    if listen is None:
        return
    at: Where = ("metrics", "listen")
    try:
        _, port = listen_at(listen)
    except ValueError as e:
        yield _finding(at, f"{shown(listen)} {e}")
        return
    for name, service in services.items():
        if port in build.ports_of(service).values():
            yield _finding(at, f"{port} is already the port of service '{name}'; choose another")


def _vault(vault: Mapping[str, Any]) -> Iterator[Finding]:
    given = vault.get("address", ())
    one = isinstance(given, str)
    for i, address in enumerate([given] if one else given):
        at: Where = ("vault", "address") if one else ("vault", "address", i)
        yield from _readable(at, address, "the login")


def _consul(consul: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _readable(("sources", "consul", "address"), consul.get("address"), "the token")


def _exec(given: Mapping[str, Any]) -> Iterator[Finding]:
    at: Where = ("sources", "exec")
    yield from _program((*at, "command"), given.get("command", ()))
    period, timeout = build.exec_times_of(given)
    if period < SHORTEST_EXEC_S:
        yield _finding((*at, "period"), f"{given['period']} is too short, write 5s or more")
    if not timeout:
        yield _finding((*at, "timeout"), "0 would end every run, write 10s")
    elif timeout > period:
        words = f"{given['timeout']} is longer than the period ({period:g}s); a run must end first"
        yield _finding((*at, "timeout"), words)


def _program(at: Where, command: Sequence[Any]) -> Iterator[Finding]:
    program = command[0] if command else None
    if program is not None and not program.startswith("/"):
        yield _finding((*at, 0), f"{shown(program)} is not the absolute path of a program")


def _readable(at: Where, address: Optional[str], what: str) -> Iterator[Finding]:
    """Plain HTTP is for loopback addresses."""
    if address is None or urlsplit(address).scheme == "https":
        return
    if not _is_loopback(urlsplit(address).hostname or ""):
        words = (
            f"{shown(address)}: {what} could be read on the way, write "
            f"https://{address.partition('://')[2]} (http:// is for loopback addresses)"
        )
        yield _finding(at, words)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _mesh(mesh: Any) -> Iterator[Finding]:
    if isinstance(mesh, str):
        mount, _, path = mesh.partition("/")
        if path.startswith("data/"):
            right = f"{mount}/{path[len('data/') :]}"
            yield _finding(
                ("mesh",), f"{shown(mesh)} is the API's path, write the secret's own: {right}"
            )
        return
    if not isinstance(mesh, Mapping):
        return
    path = mesh.get("vault_kv", {}).get("path", "")
    if path.startswith("data/"):
        yield _finding(
            ("mesh", "vault_kv", "path"),
            f"{shown(path)} is the API's path, write the secret's own: {path[len('data/') :]}",
        )
    if "vault_kv" in mesh or not {"version", "kubernetes", "istio"} <= set(mesh):
        return
    for at, words in facts.problems(mesh):
        if words != facts.MISSING:  # the schema has told it
            yield _finding(("mesh", *at), words)


def _vm(vm: Mapping[str, Any]) -> Iterator[Finding]:
    given = [key for key in ("address", "interface", "cidr") if key in vm]
    if len(given) > 1:
        words = f"has {listed(given, 'and')}; keep one of them"
        yield Finding(("vm", given[-1]), about(("vm",), words))
    if vm.get("name") in GENERIC_NAMES:
        yield _finding(
            ("vm", "name"),
            f"{shown(vm['name'])} is the name of many machines; choose one that no other VM of "
            "the namespace has, or remove the line to take the instance ID",
        )
    if "cidr" in vm:
        yield from _cidr(("vm", "cidr"), vm["cidr"])
        yield from _ipv6(("vm", "cidr"), vm["cidr"])
    if vm.get("address", CLOUD_PUBLIC) != CLOUD_PUBLIC:
        yield from _address(("vm", "address"), vm["address"])


def _address(at: Where, text: str) -> Iterator[Finding]:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        yield _finding(
            at, f"{shown(text)} is neither an IP address such as 10.0.1.17 nor {CLOUD_PUBLIC}"
        )
        return
    yield from _ipv6(at, text)
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        yield _finding(at, f"{shown(text)} is no address at which others reach this VM")


def _ipv6(at: Where, text: str) -> Iterator[Finding]:
    """Envoy would listen on IPv4 only, and traffic by IPv6 is not captured."""
    if ":" in text:
        yield _finding(at, f"{shown(text)} is IPv6; the mesh reaches VMs by IPv4 only")


def _cidr(at: Where, text: str) -> Iterator[Finding]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        yield _finding(at, f"{shown(text)} is not a network such as 10.0.0.0/16")
        return
    if "/" not in text:
        yield _finding(at, f"{shown(text)} has no prefix length, write {network}")
    elif ipaddress.ip_interface(text).ip != network.network_address:
        yield _finding(at, f"{shown(text)} is an address inside a network, write {network}")


def _labels(at: Where, holder: Mapping[str, Any]) -> Iterator[Finding]:
    for key, value in holder.get("labels", {}).items():
        words = labels.template_refusal(key, value)
        if words:
            yield _finding((*at, key), words)


def _common_labels(at: Where, holder: Mapping[str, Any]) -> Iterator[Finding]:
    for key, value in holder.get("labels", {}).items():
        words = labels.refusal(key, value)
        if labels.variables(value) & labels.VARIABLES.keys():
            words = (
                f"{shown(value)} would differ between the VMs of the workload, which its policies "
                "may not; variables are for the labels of services and of vm"
            )
        if words:
            yield _finding((*at, key), words)


def _ports(services: Mapping[str, Any]) -> Iterator[Finding]:
    owners: dict[int, str] = {}
    for name, service in services.items():
        for port_name, port in build.ports_of(service).items():
            at: Where = ("services", name, "port")
            if "port" not in service:
                at = ("services", name, "ports", port_name)
            if port in PROXY_PORTS:
                yield _finding(at, f"{port} is a port of the proxy itself; choose another")
            elif owners.setdefault(port, name) != name:
                yield _finding(
                    at,
                    f"{port} is already the port of service '{owners[port]}'; one is wrong",
                )


def _service(at: Where, service: Mapping[str, Any]) -> Iterator[Finding]:
    yield from _labels((*at, "labels"), service)
    ports = build.ports_of(service)
    checks = service.get("checks", ())
    ttls = [i for i, check in enumerate(checks) if check is not None and "ttl" in check]
    for i in ttls[1:]:
        yield _finding((*at, "checks", i, "ttl"), "a service has one ttl check; remove this one")
    for i, check in enumerate(checks):
        if check is not None:
            yield from _check((*at, "checks", i), check, ports)
            if check.get("critical") is False and "weight" not in service:
                yield _finding(
                    (*at, "checks", i, "critical"),
                    "false lowers the service's weight, and it has none: add `weight: 100` to the "
                    "services of this name on all VMs first",
                )


def _allowed(allow: Mapping[str, Any]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for port, given in allow.items():
        at: Where = ("sources", "sockets", "allow", port)
        name, service = build.allowed(port, given)
        if service["port"] > HIGHEST_PORT:
            yield _finding(at, f"{port} is not a port (1 to {HIGHEST_PORT})")
        elif service["port"] in PROXY_PORTS:
            yield _finding(at, f"{port} is a port of the proxy itself; choose another")
        if owners.setdefault(name, port) != port and name:
            yield _finding(at, f"{name} is already the name of port {owners[name]}")
        yield from _service(at, service)
        for i, check in enumerate(service.get("checks", ())):
            kinds = [kind for kind in ("exec", "ttl") if kind in (check or ())]
            if kinds:
                words = f"{kinds[0]} is for `services` only: declare it there"
                yield _finding((*at, "checks", i), words)


def _check(at: Where, check: Mapping[str, Any], ports: Mapping[str, int]) -> Iterator[Finding]:
    yield from _times(at, check)
    for kind in ("process", "ttl"):
        if kind in check:
            yield from _heard_of(at, check, kind)
    if "ttl" in check and seconds(check["ttl"]) < SHORTEST_TTL_S:
        yield _finding((*at, "ttl"), f"{check['ttl']} is too short, write 1s or more")
    if "group" in check and "ttl" not in check:
        yield _finding((*at, "group"), "belongs to a ttl check; remove the line")
    yield from _program((*at, "exec"), check.get("exec", ()))
    if "http" in check:
        yield from _http((*at, "http"), check["http"], ports)
    if "grpc" in check:
        grpc = build.grpc_of(check["grpc"])
        inside = (*at, "grpc", "port") if "port" in grpc else (*at, "grpc")
        yield from _port(inside, grpc, ports, "grpc")


def _times(at: Where, check: Mapping[str, Any]) -> Iterator[Finding]:
    period, timeout = build.times_of(check)
    if period < SHORTEST_PERIOD_S:
        yield _finding((*at, "period"), f"{check['period']} is too short, write 200ms or more")
    if "timeout" in check:
        if not timeout:
            yield _finding((*at, "timeout"), "0 would fail every probe, write 1s")
        elif timeout > period:
            asked = check.get("period", f"{build.PERIOD_S:g}s, the default")
            words = (
                f"{check['timeout']} is longer than the period ({asked}); a probe must end first"
            )
            yield _finding((*at, "timeout"), words)


def _heard_of(at: Where, check: Mapping[str, Any], kind: str) -> Iterator[Finding]:
    what = "a process" if kind == "process" else "an application that speaks for itself"
    for key in LOOKS:
        if key in check:
            yield _finding((*at, key), f"{what} is not looked at but heard of; remove the line")


def _http(at: Where, given: Any, ports: Mapping[str, int]) -> Iterator[Finding]:
    probe = {"path": given} if isinstance(given, str) else given
    yield from _port((*at, "port") if "port" in probe else at, probe, ports, "http")
    low, high = build.status_of(probe)
    if low > high:
        yield _finding((*at, "status"), f"{low}-{high} is upside down, write {high}-{low}")
    if "body" in probe and probe.get("method") == "HEAD":
        yield _finding((*at, "body"), "an answer to HEAD has no body; use method: GET")
    tls = probe.get("tls")
    if isinstance(tls, Mapping) and ("cert" in tls) != ("key" in tls):
        yield _finding((*at, "tls"), "has one of cert and key; it needs both or neither")


def _port(
    at: Where, probe: Mapping[str, Any], ports: Mapping[str, int], name: str
) -> Iterator[Finding]:
    if not ports or build.port_of(probe, ports, name) is not None:
        return
    names = listed(sorted(ports))
    if "port" in probe:
        yield _finding(
            at, f"there is no port {shown(probe['port'])} here, write {names} or a number"
        )
    else:
        yield _finding(at, f"which port? The service has several; add `port: ` with {names}")
