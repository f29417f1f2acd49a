"""What our own Envoy makes of what we registered.

It is one of the mesh's clients: what it lists, the others list. And it is the server: istiod
gives it an inbound cluster for each endpoint of its address, but not always. A proxy's service
targets are computed when a WorkloadEntry becomes healthy, in a race with the index that they are
read from (pilot/pkg/serviceregistry/serviceentry/controller.go, pushWorkloadUpdates; for pods it
was mended in pushPodProxyUpdates). Lost, as it mostly is, the VM takes that service's requests in
as plain TCP, so that policies about paths and methods refuse them, until the proxy connects anew.
A change of any label of the entry makes istiod compute them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vmoor.model import entry
from vmoor.model.entry import EntryState, Object
from vmoor.model.health import Health, Verdict
from vmoor.model.service import Service

NUDGE = "vmoor.io/nudge"
# A field manager of its own: registration neither sets the label nor takes it away.
NUDGER = "vmoor-nudge"
OVERDUE_S = 10.0  # a healthy service that our own Envoy does not list by then is not on its way


class Clusters(NamedTuple):
    """Of our own Envoy: which of the endpoints asked for it sends to, which ports it takes in."""

    outbound: frozenset[str] = frozenset()
    inbound: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Sight:
    """One service. `agreed`: since when Envoy agrees with its entry, Clock.now(), 0 = not yet."""

    listed: bool = False
    blind: bool = False  # listed, but its requests are taken in as plain TCP
    agreed: float = 0.0


def endpoint(address: str, port: int) -> str:
    """As Envoy prints it: IP:PORT, with brackets around an IPv6 address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoints(address: str, services: Iterable[Service]) -> frozenset[str]:
    return frozenset(endpoint(address, p) for s in services for p in s.ports.values())


def sights(
    old: Mapping[str, Sight],
    clusters: Clusters,
    address: str,
    services: Sequence[Service],
    entries: Sequence[EntryState],
    now: float,
) -> Mapping[str, Sight]:
    """Each registered service as Envoy has it now."""
    healthy = {e.service: e.health == "True" for e in entries if e.state == "registered"}
    found = {}
    for service in services:
        if service.name not in healthy:
            continue
        ports = [p for p in service.ports.values() if endpoint(address, p) in clusters.outbound]
        listed = bool(ports)
        blind = healthy[service.name] and not clusters.inbound.issuperset(ports)
        agrees = listed is healthy[service.name] and not blind
        before = old.get(service.name, Sight())
        kept = before.agreed if before.agreed and before.listed is listed else now
        found[service.name] = Sight(listed, blind, kept if agrees else 0.0)
    return found


def overdue(seen: Mapping[str, Sight], verdicts: Mapping[str, Verdict]) -> Mapping[str, float]:
    """When it is too long that a healthy service is not listed, for each that is not."""
    return {
        name: verdicts[name].since + OVERDUE_S
        for name, sight in sorted(seen.items())
        if not sight.listed and name in verdicts and verdicts[name].health is Health.HEALTHY
    }


def nudged(have: Object) -> Object:
    """The body of an apply by NUDGER that changes one label of exactly this version."""
    labels = entry.metadata(have).get("labels") or {}
    last = str(labels.get(NUDGE, ""))
    count = int(last) + 1 if last.isdecimal() and len(last) < 4 else 1  # noqa: PLR2004 - digits
    return {
        "apiVersion": entry.API_VERSION,
        "kind": "WorkloadEntry",
        "metadata": {**entry.judged(have), "labels": {NUDGE: str(count)}},
    }
