"""What a VM is for the mesh, what listens on it, and how that is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional, Union

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
# Ports of the sidecar: https://istio.io/latest/docs/ops/deployment/application-requirements/
PROXY_PORTS = (15000, 15001, 15004, 15006, 15008, 15020, 15021, 15053, 15090)


class Workload(NamedTuple):
    namespace: str
    name: str
    service_account: str
    labels: Mapping[str, str] = {}

    @property
    def mesh_labels(self) -> Mapping[str, str]:
        """On the proxy and on every entry of every VM of this workload, always equal.

        istiod takes the labels of the *first* entry with the VM's address for the VM's own
        policies. Names: istio.io/api/label.
        """
        return {
            "app": self.name,
            "service.istio.io/canonical-name": self.name,
            "service.istio.io/canonical-revision": self.labels.get("version", "latest"),
            **self.labels,
        }

    @property
    def api_account(self) -> str:
        """The ServiceAccount for the API; `service_account` itself has no rights there."""
        return f"{self.service_account}-vmoor"


class Tls(NamedTuple):
    """https; the paths of PEM files. Without `ca` the server's certificate is not verified."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    server_name: str = ""  # "" = the address


class HttpProbe(NamedTuple):
    path: str
    port: int
    host: str = "127.0.0.1"
    headers: Mapping[str, str] = {}
    status: tuple[int, int] = (200, 399)
    method: str = "GET"
    body: str = ""  # what the answer must contain; "" = anything
    tls: Optional[Tls] = None


class TcpProbe(NamedTuple):
    port: int
    host: str = "127.0.0.1"


class GrpcProbe(NamedTuple):
    """grpc.health.v1.Health on the loopback address."""

    port: int
    service: str = ""  # "" = the server as a whole


class ExecProbe(NamedTuple):
    """A command of the operator's, named by its place: services.NAME.checks[check]."""

    service: str
    check: int


class FileProbe(NamedTuple):
    """A regular file exists and, with `max_age` in seconds, was written lately."""

    path: str
    max_age: Optional[float] = None


class UnitProbe(NamedTuple):
    """The owning unit is active and every port of the service listens. Driven by events."""

    unit: str
    ports: tuple[int, ...]


class ProcessProbe(NamedTuple):
    """The process whose pid stands in the file lives. Driven by events."""

    path: str


class TtlProbe(NamedTuple):
    """The application itself says how it is, at least each `ttl` seconds. Driven by events."""

    service: str
    ttl: float
    group: str = ""  # whose members may say so beside root


@dataclass(frozen=True)
class ToldProbe:
    """The source that brought the service also tells how it is."""


# Those that are looked at, in a thread and with a deadline; the others are told by events.
Polled = Union[HttpProbe, TcpProbe, GrpcProbe, ExecProbe, FileProbe]
AnyProbe = Union[Polled, UnitProbe, ProcessProbe, TtlProbe, ToldProbe]


@dataclass(frozen=True)
class Check:
    """One way to look at a service; times in seconds."""

    name: str  # "http /healthz", "tcp 8080", "unit web.service": what people see
    probe: AnyProbe
    period: float = 5.0
    timeout: float = 1.0
    failure_threshold: int = 2
    success_threshold: int = 1
    initial_delay: float = 0.0
    critical: bool = True  # False = its failure only degrades the service


@dataclass(frozen=True)
class Service:
    name: str
    ports: Mapping[str, int]
    checks: tuple[Check, ...]
    protocol: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: Optional[int] = None
    unit: str = ""
    source: str = "static"
