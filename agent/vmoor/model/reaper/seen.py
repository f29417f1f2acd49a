"""Leases and WorkloadEntries as the reaper keeps them: a few words of each, for 10 000 VMs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Optional

from vmoor.model import drain, entry, lease
from vmoor.model.entry import Object
from vmoor.model.reaper import LEASE_EXPIRED

# Annotations on a VM's Lease. The agent's next PUT is without them, but for the first.
DRAINED = drain.ANNOTATION
CONFIRMED = "vmoor.io/confirmed"  # "<renewTime> <holder>", by a person: this one is dead


class Vm(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Grave(NamedTuple):
    """Of which services a VM was, and in which zone, when its entries were deleted."""

    services: tuple[str, ...] = ()
    zone: str = ""

    def text(self) -> str:
        return json.dumps({"services": sorted(self.services), "zone": self.zone})


@dataclass(frozen=True)
class Pulse:
    """One VM's Lease. `changed`: when its renewTime was last seen to change, or first seen."""

    vm: Vm
    holder: str = ""
    renewed: str = ""
    duration: float = lease.DURATION_S  # as believed: at most 120
    changed: float = 0.0
    drained: bool = False
    confirmed: bool = False
    grave: Optional[Grave] = None
    buried: float = 0.0  # since when the tombstone has been seen
    absent: bool = False  # there are entries and no Lease, since `changed`


@dataclass(frozen=True)
class Endpoint:
    """One marked WorkloadEntry. `since`: when its LeaseExpired was first seen."""

    vm: Vm
    name: str
    service: str
    zone: str = ""  # region/zone, "" = none
    healthy: bool = False
    expired: bool = False
    since: float = 0.0


def pulse(thing: Object, now: float, before: Optional[Pulse] = None) -> Optional[Pulse]:
    """None when it is not a VM's Lease with our owner mark."""
    meta, labels = entry.metadata(thing), entry.labels(thing)
    name = labels.get(entry.VM, "")
    if not _marked(labels) or meta.get("name") != lease.lease_name(name):
        return None
    holder, renewed = lease.holder_of(thing), lease.renewed_of(thing)
    marks = entry.notes(thing)
    grave = _grave(marks.get(lease.TOMBSTONE))
    same = before is not None and (before.holder, before.renewed) == (holder, renewed)
    buried = before is not None and before.grave is not None
    return Pulse(
        vm=Vm(str(meta.get("namespace", "")), name),
        holder=holder,
        renewed=renewed,
        duration=lease.believed(thing),
        changed=before.changed if before and same else now,
        drained=DRAINED in marks,
        confirmed=bool(renewed) and marks.get(CONFIRMED) == confirmation(renewed, holder),
        grave=grave,
        buried=0.0 if grave is None else before.buried if before and buried else now,
    )


def endpoint(thing: Object, now: float, before: Optional[Endpoint] = None) -> Optional[Endpoint]:
    """None when it does not carry our owner mark."""
    meta, labels = entry.metadata(thing), entry.labels(thing)
    service = labels.get(entry.SERVICE, "")
    if not _marked(labels) or not service:
        return None
    health = entry.health(thing) or {}
    status = health.get("status")
    expired = status == "False" and health.get("reason") == LEASE_EXPIRED
    kept = before.since if before and before.expired else now
    return Endpoint(
        vm=Vm(str(meta.get("namespace", "")), labels[entry.VM]),
        name=str(meta.get("name", "")),
        service=service,
        zone=zone((thing.get("spec") or {}).get("locality")),
        healthy=status == "True",
        expired=expired,
        since=kept if expired else 0.0,
    )


def confirmation(renewed: str, holder: str) -> str:
    """Void at the next beat, whatever becomes of the annotation."""
    return f"{renewed} {holder}"


def zone(locality: object) -> str:
    """region/zone of region/zone/subzone."""
    return "/".join(str(locality or "").split("/")[:2])


def _marked(labels: Mapping[str, str]) -> bool:
    return (
        labels.get(entry.MANAGED_BY) == entry.OWNER
        and bool(labels.get(entry.VM))
        and bool(labels.get(entry.SERVICE_ACCOUNT))
    )


def _grave(text: object) -> Optional[Grave]:
    """What cannot be read is still a tombstone."""
    if text is None:
        return None
    try:
        said = json.loads(str(text))
        return Grave(tuple(sorted(map(str, said["services"]))), str(said["zone"]))
    except (ValueError, KeyError, TypeError):
        return Grave()
