"""The ServiceEntry that selects a service's VMs, and a VirtualService with retries for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from vmoor.model import entry

Manifest = dict[str, Any]

# Istio reads the protocol from a port's name up to the first dash (pkg/config/protocol).
PROTOCOLS = ("http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "mongo", "redis", "mysql")
HTTP = ("http", "http2", "grpc", "grpc-web")

ATTEMPTS = 3
# Istio's default when there is no VirtualService (pilot/pkg/networking/core/route/retry).
_DEFAULT = "connect-failure,refused-stream,unavailable,cancelled"
# Nothing of the request has left: as harmless as connect-failure, also for a POST.
SAFE = f"{_DEFAULT},reset-before-request"
# A VM that dies in the middle of an answer resets the connection, and its proxy says 503 when
# the application is gone; whether that did what it was asked to is not known, which does not
# matter for methods that only read.
READING = f"{_DEFAULT},503,reset"


class Port(NamedTuple):
    number: int  # what clients use
    name: str  # the service's own name of it, in the VMs' configuration
    protocol: str
    target: int  # on a VM whose entry names no port of this name


def service_entry(
    namespace: str, service: str, host: str, ports: Sequence[Port], address: Optional[str]
) -> Manifest:
    spec: Manifest = {
        "hosts": [host],
        **({"addresses": [address]} if address else {}),
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [_port(port) for port in ports],
        "workloadSelector": {"labels": {entry.SERVICE: service}},
    }
    return _object("ServiceEntry", namespace, service, spec)


def retries(namespace: str, service: str, host: str, try_timeout: str) -> Manifest:
    reading = {
        "name": "reading",
        "match": [{"method": {"regex": "GET|HEAD|OPTIONS"}}],
        "route": [{"destination": {"host": host}}],
        "retries": {"attempts": ATTEMPTS, "perTryTimeout": try_timeout, "retryOn": READING},
    }
    other = {
        "name": "writing",
        "route": [{"destination": {"host": host}}],
        "retries": {"attempts": ATTEMPTS, "retryOn": SAFE},
    }
    return _object(
        "VirtualService", namespace, service, {"hosts": [host], "http": [reading, other]}
    )


def _port(port: Port) -> Manifest:
    made = {"number": port.number, "name": port.name, "protocol": port.protocol.upper()}
    return {**made, "targetPort": port.target} if port.target != port.number else made


def _object(kind: str, namespace: str, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": entry.API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
