"""What somebody took out of the mesh until `vmoor resume`: the whole VM, or single services.

Who is drained is still checked and still beats: it is out, not gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from vmoor.model import entry
from vmoor.model.service import DNS_LABEL

ANNOTATION = "vmoor.io/drained"  # on the Lease while the whole VM is drained; the reaper reads it
WHO = re.compile(r"[A-Za-z0-9._@\\-]{1,64}")  # a user's name, also of a directory


@dataclass(frozen=True)
class Order:
    who: str
    since: float  # Unix seconds


@dataclass(frozen=True)
class Drained:
    vm: Optional[Order] = None
    services: Mapping[str, Order] = field(default_factory=dict)

    def of(self, service: str) -> Optional[Order]:
        """The order that keeps this service out; None = none does."""
        return self.vm or self.services.get(service)

    def with_order(self, service: str, order: Order) -> Drained:
        """`service` "" = the VM. Who was drained before stays so by the first order."""
        if not service:
            return replace(self, vm=self.vm or order)
        return replace(self, services={service: order, **self.services})

    def without(self, service: str) -> Drained:
        """`service` "" = the VM; services with an order of their own stay drained."""
        if not service:
            return replace(self, vm=None)
        rest = {name: order for name, order in self.services.items() if name != service}
        return replace(self, services=rest)


def marks(drained: Drained) -> Mapping[str, str]:
    """Annotations of the Lease."""
    order = drained.vm
    return {ANNOTATION: f"{order.who} {entry.timestamp(order.since)}"} if order else {}


def record(drained: Drained, machine_hash: str) -> Mapping[str, Any]:
    """To be kept over restarts and reboots, on this machine only: no clone is born drained."""
    orders = {name: vars(order) for name, order in drained.services.items()}
    vm = vars(drained.vm) if drained.vm else None
    return {"machine": machine_hash, "vm": vm, "services": orders}


def recalled(kept: Mapping[str, Any], machine_hash: str) -> Drained:
    """What `record` has kept; what is no order of ours is left out."""
    services = kept.get("services")
    if kept.get("machine") != machine_hash or not isinstance(services, dict):
        return Drained()
    orders = {name: _order(order) for name, order in services.items() if DNS_LABEL.fullmatch(name)}
    return Drained(_order(kept.get("vm")), {n: o for n, o in orders.items() if o is not None})


def _order(kept: Any) -> Optional[Order]:
    who, since = (kept.get("who"), kept.get("since")) if isinstance(kept, dict) else (None, None)
    if not isinstance(who, str) or not WHO.fullmatch(who) or not isinstance(since, (int, float)):
        return None
    return Order(who, float(since))
