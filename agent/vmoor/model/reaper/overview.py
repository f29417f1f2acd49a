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
    holder: str = ""
    confirmed: bool = False

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


def overview(leases: Iterable[Object], entries: Iterable[Object], now: float) -> Overview:
    pulses: dict[Vm, tuple[Pulse, Object]] = {}
    published: Optional[Object] = None
    for thing in leases:
        pulse = seen.pulse(thing, now)
        if pulse is not None:
            pulses[pulse.vm] = (pulse, thing)
        elif entry.name(thing) == fleet.NAME:
            published = thing
    owned: dict[Vm, list[tuple[Endpoint, Object]]] = defaultdict(list)
    for thing in entries:
        endpoint = seen.endpoint(thing, now)
        if endpoint is not None:
            owned[endpoint.vm].append((endpoint, thing))
    rows = [_row(vm, pulses.get(vm), owned.get(vm, ()), now) for vm in {*pulses, *owned}]
    rows.sort(key=lambda row: (STATES.index(row.state), row.vm))
    at = _unix(lease.renewed_of(published or {}))
    fresh = at is not None and now - at < fleet.STALE_S
    return Overview(
        rows,
        reaper=lease.holder_of(published or {}) if fresh else "",
        interval=fleet.obeyed(published) if fresh else lease.INTERVAL_S,
        brakes=fleet.brakes(published) if fresh else (),
    )


def _row(
    vm: Vm,
    found: Optional[tuple[Pulse, Object]],
    owned: Sequence[tuple[Endpoint, Object]],
    now: float,
) -> Row:
    services = [
        {"name": e.service, "health": str(said.get("status") or "none"),
         "reason": str(said.get("reason") or "")}
        for e, said in sorted(
            ((e, entry.health(thing) or {}) for e, thing in owned), key=lambda x: x[0].service
        )
    ]  # fmt: skip
    zone = next((e.zone for e, _ in owned), "")
    address = next((entry.address(thing) for _, thing in owned), "")
    if found is None:
        return Row(vm, "no lease", None, services, zone=zone, address=address)
    pulse, thing = found
    at = _unix(pulse.renewed)
    age = None if at is None else max(0.0, now - at)
    return Row(
        vm,
        state(pulse, age, expired=any(e.expired for e, _ in owned)),
        age,
        services,
        version=str(entry.notes(thing).get(lease.VERSION, "")),
        zone=zone or (pulse.grave.zone if pulse.grave else ""),
        address=address,
        holder=pulse.holder,
        confirmed=pulse.confirmed,
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


def confirmations(rows: Iterable[Row], leases: Iterable[Object]) -> Sequence[Object]:
    """What to apply so that the reaper believes a person: bound to these very beats."""
    wanted = {row.vm for row in rows}
    bodies = []
    for thing in leases:
        pulse = seen.pulse(thing, 0.0)
        if pulse is None or pulse.vm not in wanted:
            continue
        mark = {seen.CONFIRMED: seen.confirmation(pulse.renewed, pulse.holder)}
        meta = {**entry.judged(thing), "namespace": pulse.vm.namespace, "annotations": mark}
        bodies.append({"apiVersion": lease.API_VERSION, "kind": "Lease", "metadata": meta})
    return bodies
