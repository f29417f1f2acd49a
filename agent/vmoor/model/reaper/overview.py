"""`vmoor fleet`: all VMs of the mesh, from their Leases and entries. Instants are Unix seconds.

Ages are by the clock of the machine that asks: good for people, proof of nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Optional

from vmoor.model import entry, lease
from vmoor.model.entry import Object
from vmoor.model.reaper import fleet, seen
from vmoor.model.reaper.seen import Endpoint, Pulse, Vm

# Worst first: what a person looks for.
STATES = ("silent", "dead", "gone", "no lease", "drained", "left", "beats")


class Row(NamedTuple):
    vm: Vm
    state: str
    age: Optional[float]  # seconds since the last beat, None = never one
    services: Sequence[Mapping[str, str]]  # name, health, reason
    version: str = ""
    zone: str = ""
    address: str = ""
    confirmed: bool = False
    beat: tuple[str, str] = ("", "")  # its renewTime and holder
    judged: Mapping[str, str] = {}  # of its Lease

    def document(self) -> Mapping[str, Any]:
        return {
            "namespace": self.vm.namespace,
            "vm": self.vm.name,
            "state": self.state,
            "beat_age": None if self.age is None else round(self.age, 1),
            "services": list(self.services),
            "version": self.version,
            "zone": self.zone,
            "address": self.address,
            "confirmed": self.confirmed,
        }


class Overview(NamedTuple):
    rows: Sequence[Row]
    reaper: str  # who watches, "" = nobody
    interval: float
    brakes: Sequence[Mapping[str, Any]]

    def document(self) -> Mapping[str, Any]:
        return {
            "reaper": self.reaper or None,
            "interval": self.interval,
            "brakes": list(self.brakes),
            "vms": [row.document() for row in self.rows],
        }


class _Lease(NamedTuple):
    pulse: Pulse
    version: str
    judged: Mapping[str, str]


class _Entry(NamedTuple):
    endpoint: Endpoint
    said: Mapping[str, Any]  # the Healthy condition
    address: str


class Gathered:
    """Takes object after object, and keeps a few words of each."""

    def __init__(self) -> None:
        self._leases: dict[Vm, _Lease] = {}
        self._entries: dict[Vm, list[_Entry]] = defaultdict(list)
        self._published: Object = {}

    def lease(self, thing: Object) -> None:
        pulse = seen.pulse(thing, 0.0)
        if pulse is not None:
            version = str(entry.notes(thing).get(lease.VERSION, ""))
            self._leases[pulse.vm] = _Lease(pulse, version, entry.judged(thing))
        elif entry.name(thing) == fleet.NAME:
            self._published = thing

    def entry(self, thing: Object) -> None:
        endpoint = seen.endpoint(thing, 0.0)
        if endpoint is not None:
            said = entry.health(thing) or {}
            self._entries[endpoint.vm].append(_Entry(endpoint, said, entry.address(thing)))

    def overview(self, now: float) -> Overview:
        vms = {*self._leases, *self._entries}
        rows = [_row(vm, self._leases.get(vm), self._entries.get(vm, ()), now) for vm in vms]
        rows.sort(key=lambda row: (STATES.index(row.state), row.vm))
        published = self._published
        at = _unix(lease.renewed_of(published))
        fresh = at is not None and now - at < fleet.STALE_S
        return Overview(
            rows,
            reaper=lease.holder_of(published) if fresh else "",
            interval=fleet.obeyed(published) if fresh else lease.INTERVAL_S,
            brakes=fleet.brakes(published) if fresh else (),
        )


def _row(vm: Vm, found: Optional[_Lease], entries: Sequence[_Entry], now: float) -> Row:
    services = [
        {"name": e.endpoint.service, "health": str(e.said.get("status") or "none"),
         "reason": str(e.said.get("reason") or "")}
        for e in sorted(entries, key=lambda e: e.endpoint.service)
    ]  # fmt: skip
    zone = entries[0].endpoint.zone if entries else ""
    address = entries[0].address if entries else ""
    if found is None:
        return Row(vm, "no lease", None, services, zone=zone, address=address)
    pulse = found.pulse
    at = _unix(pulse.renewed)
    age = None if at is None else max(0.0, now - at)
    return Row(
        vm,
        state(pulse, age, expired=any(e.endpoint.expired for e in entries)),
        age,
        services,
        version=found.version,
        zone=zone or (pulse.grave.zone if pulse.grave else ""),
        address=address,
        confirmed=pulse.confirmed,
        beat=(pulse.renewed, pulse.holder),
        judged=found.judged,
    )


def state(pulse: Pulse, age: Optional[float], *, expired: bool) -> str:
    """One of STATES for a VM whose last beat is that old; `expired`: one of its entries is.

    `dead`: the reaper has taken it out. `gone`: and deleted what it had.
    """
    silent = age is None or age > pulse.duration
    if pulse.grave is not None:
        return "gone"
    if pulse.drained and not silent:
        return "drained"
    if not pulse.holder:
        return "left"
    if expired and silent:
        return "dead"
    return "silent" if silent else "beats"


def _unix(renewed: str) -> Optional[float]:
    """Of metav1.MicroTime; None when it is none."""
    try:
        return datetime.fromisoformat(renewed.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def confirmations(rows: Iterable[Row]) -> Sequence[Object]:
    """What to apply so that the reaper believes a person: bound to these very beats."""
    bodies = []
    for row in rows:
        mark = {seen.CONFIRMED: seen.confirmation(*row.beat)}
        meta = {**row.judged, "namespace": row.vm.namespace, "annotations": mark}
        bodies.append({"apiVersion": lease.API_VERSION, "kind": "Lease", "metadata": meta})
    return bodies
