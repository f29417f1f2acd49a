"""From an accepted document (plain JSON) to Settings.

The daemon does this with documents from a child process and from its state directory; so
nothing here reads YAML or the schema, and nothing depends on the order of keys: the kept
document is sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Optional

from vmoor.config.durations import seconds
from vmoor.config.facts import facts_from
from vmoor.config.settings import (
    AppRole,
    ConsulSource,
    ExecSource,
    FileSource,
    Interception,
    Leave,
    MeshSource,
    ProxySettings,
    Settings,
    Sources,
    VaultSettings,
    VmSettings,
)
from vmoor.model.service import (
    Check,
    ExecProbe,
    FileProbe,
    GrpcProbe,
    HttpProbe,
    ProcessProbe,
    Service,
    TcpProbe,
    Tls,
    TtlProbe,
    UnitProbe,
    Workload,
)

Document = Mapping[str, Any]

PERIOD_S, TIMEOUT_S = 5.0, 1.0  # of a check
EXEC_PERIOD_S, EXEC_TIMEOUT_S = 30.0, 10.0  # of sources.exec
DEFAULT_PORT_NAME = "http"
DRAIN = "30s"


def settings_from(document: Document) -> Settings:
    """Of a document that `load` has accepted. Raises Misconfigured for bad inline facts."""
    return Settings(
        vault=_vault(document["vault"]),
        mesh=_mesh(document["mesh"]),
        workload=Workload(**document["workload"]),
        services=services_from(document),
        vm=VmSettings(**document.get("vm", {})),
        proxy=ProxySettings(**document.get("proxy", {})),
        interception=_interception(document.get("interception", {})),
        log_level=document.get("log", {}).get("level", "info"),
        sources=_sources(document.get("sources", {})),
        leave=Leave(**document.get("leave", {})),
        drain_timeout=seconds(document.get("drain", {}).get("timeout", DRAIN)),
        hooks={name: tuple(argv) for name, argv in document.get("hooks", {}).items()},
        metrics_listen=document.get("metrics", {}).get("listen", ""),
    )


def services_from(document: Document, source: str = "static") -> tuple[Service, ...]:
    found = sorted(document.get("services", {}).items())
    return tuple(service(name, given, source) for name, given in found)


def ports_of(service: Document) -> Mapping[str, int]:
    """Its ports by name; `port: N` means {http: N}."""
    if "port" in service:
        return {DEFAULT_PORT_NAME: service["port"]}
    return dict(service.get("ports", {}))


def port_of(
    probe: Document, ports: Mapping[str, int], name: str = DEFAULT_PORT_NAME
) -> Optional[int]:
    """The port that a check means, of several that of this name; None when it must say which."""
    port = probe.get("port")
    if isinstance(port, int):
        return port
    if port is None and len(ports) == 1:
        return next(iter(ports.values()))
    return ports.get(name if port is None else port)


def grpc_of(given: Any) -> Document:
    """The mapping that true or a port stands for."""
    if isinstance(given, Mapping):
        return given
    return {} if given is True else {"port": given}  # true is an int too


def times_of(
    given: Document, period: float = PERIOD_S, timeout: float = TIMEOUT_S
) -> tuple[float, float]:
    """Period and timeout in seconds; those of a check by default."""
    period = seconds(given["period"]) if "period" in given else period
    return period, seconds(given["timeout"]) if "timeout" in given else min(timeout, period)


def exec_times_of(given: Document) -> tuple[float, float]:
    """Those of sources.exec."""
    return times_of(given, EXEC_PERIOD_S, EXEC_TIMEOUT_S)


def status_of(probe: Document) -> tuple[int, int]:
    """The lowest and the highest status that passes."""
    low, _, high = str(probe.get("status", "200-399")).partition("-")
    return int(low), int(high or low)


def _vault(vault: Document) -> VaultSettings:
    address = vault["address"]
    auth = {key: value for key, value in vault["auth"].items() if key != "method"}
    return VaultSettings(
        addresses=(address,) if isinstance(address, str) else tuple(address),
        auth=AppRole(**auth),
        ca_cert=vault.get("ca_cert", ""),
        namespace=vault.get("namespace", ""),
    )


def _mesh(mesh: Any) -> MeshSource:
    if isinstance(mesh, str):
        mount, _, path = mesh.partition("/")
        return MeshSource(kv_mount=mount, kv_path=path)
    overrides = {key: mesh[key] for key in ("revision", "network") if key in mesh}
    if "vault_kv" in mesh:
        kv = mesh["vault_kv"]
        return MeshSource(kv_mount=kv["mount"], kv_path=kv["path"], **overrides)
    return MeshSource(inline=facts_from(mesh, "mesh"), **overrides)


def allowed(port: str, given: Any) -> tuple[str, Document]:
    """Name and keys of the service that a port of sources.sockets.allow is."""
    keys = {"name": given} if isinstance(given, str) else dict(given)
    return keys.pop("name", ""), {**keys, "port": int(port)}


def _sources(given: Document) -> Sources:
    systemd, sockets, file, command = (
        given.get(key) for key in ("systemd", "sockets", "file", "exec")
    )
    allow = sorted((sockets or {}).get("allow", {}).items())
    return Sources(
        consul=ConsulSource(**given["consul"]) if "consul" in given else None,
        systemd=None if systemd is None else tuple(systemd.get("units", ("*.service",))),
        file=None if file is None else FileSource(**file),
        exec=None
        if command is None
        else ExecSource(tuple(command["command"]), *exec_times_of(command)),
        sockets=None
        if sockets is None
        else tuple(service(*allowed(port, keys), "sockets") for port, keys in allow),
    )


def _interception(given: Document) -> Interception:
    # `exclude` is for root's hook, which reads the files itself.
    return Interception(**{key: value for key, value in given.items() if key != "exclude"})


def service(name: str, given: Document, source: str = "static") -> Service:
    ports = ports_of(given)
    unit = given.get("unit", "")
    checks = given.get("checks") or ([] if unit else [{"tcp": True}])
    found = [
        check
        for i, each in enumerate(checks)
        for check in _checks(each, ports, ExecProbe(name, i))
    ]
    if unit:
        # One failed look is enough: systemd's word that a unit is dead is no fluke.
        probe = UnitProbe(unit, tuple(sorted(ports.values())))
        found.insert(0, Check(f"unit {unit}", probe, failure_threshold=1))
    return Service(
        name=name,
        ports=ports,
        checks=tuple(found),
        protocol=given.get("protocol", ""),
        labels=given.get("labels", {}),
        weight=given.get("weight"),
        unit=unit,
        source=source,
    )


def _checks(given: Document, ports: Mapping[str, int], place: ExecProbe) -> Iterator[Check]:
    """One check; for tcp without a port, one for each port of the service."""
    period, timeout = times_of(given)
    common: dict[str, Any] = {
        "period": period,
        "timeout": timeout,
        "initial_delay": seconds(given.get("initial_delay", "0s")),
        **{
            k: given[k]
            for k in ("failure_threshold", "success_threshold", "critical")
            if k in given
        },
    }
    if "http" in given:
        yield _http(given["http"], ports, common)
        return
    if "grpc" in given:
        yield _grpc(grpc_of(given["grpc"]), ports, common)
        return
    if "exec" in given:
        yield Check(f"exec {given['exec'][0]}", place, **common)
        return
    if "file" in given:
        yield _file(given["file"], common)
        return
    if "process" in given:
        process = given["process"]
        path = process if isinstance(process, str) else process["pid_file"]
        common["failure_threshold"] = 1  # as for a unit
        yield Check(f"process {path}", ProcessProbe(path), **common)
        return
    if "ttl" in given:
        common["failure_threshold"] = 1
        silence = seconds(given["ttl"])
        probe = TtlProbe(place.service, silence, given.get("group", ""))
        yield Check(f"ttl {given['ttl']}", probe, **common)
        return
    tcp = given["tcp"]
    # True is an int too.
    each = sorted(ports.values()) if tcp is True or tcp is None else [tcp]
    for port in each:
        yield Check(f"tcp {port}", TcpProbe(port), **common)


def _http(given: Any, ports: Mapping[str, int], common: Mapping[str, Any]) -> Check:
    probe: Document = {"path": given} if isinstance(given, str) else given
    port = port_of(probe, ports)
    if port is None:
        raise KeyError(f"http check {probe['path']}: port")
    rest = {key: probe[key] for key in ("host", "headers", "method", "body") if key in probe}
    if "tls" in probe:
        rest["tls"] = Tls() if probe["tls"] is True else Tls(**probe["tls"])
    http = HttpProbe(path=probe["path"], port=port, status=status_of(probe), **rest)
    return Check(f"http {probe['path']}", http, **common)


def _grpc(given: Document, ports: Mapping[str, int], common: Mapping[str, Any]) -> Check:
    port = port_of(given, ports, "grpc")
    if port is None:
        raise KeyError("grpc check: port")
    service = given.get("service", "")
    return Check(f"grpc {port} {service}".rstrip(), GrpcProbe(port, service), **common)


def _file(given: Any, common: Mapping[str, Any]) -> Check:
    probe: Document = {"path": given} if isinstance(given, str) else given
    max_age = seconds(probe["max_age"]) if "max_age" in probe else None
    return Check(f"file {probe['path']}", FileProbe(probe["path"], max_age), **common)
