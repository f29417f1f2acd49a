"""What somebody took out of the mesh until `vmoor resume`: the whole VM, or single services.

Who is drained is still checked and still beats: it is out, not gone. So it is while the cloud
announces the VM's end: that is no order to be kept, the cloud says it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from vmoor.model import entry
from vmoor.model.notice import Notice
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
    notice: Optional[Order] = None  # the cloud's
    hold: bool = False  # nothing new enters the mesh: the cloud forbids it, or was not heard yet

    @property
    def whole(self) -> Optional[Order]:
        """The order that keeps the whole VM out."""
        return self.notice or self.vm

    @property
    def unheard(self) -> bool:
        """Whether the cloud, which is to be heard first, may still announce something."""
        return self.hold and self.notice is None

    def of(self, service: str) -> Optional[Order]:
        """The order that keeps this service out; None = none does."""
        return self.whole or self.services.get(service)

    def noticed(self, notice: Optional[Notice], now: float) -> Drained:
        """What the cloud announces; None = nothing. `now` is in Unix seconds."""
        if notice is None:
            return replace(self, notice=None, hold=False)
        was = self.notice
        order = was if was and was.who == notice.who else Order(notice.who, now)
        return replace(self, notice=order, hold=notice.hold)

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
    order = drained.whole
    return {ANNOTATION: f"{order.who} {entry.timestamp(order.since)}"} if order else {}


def unseen(services: Optional[Sequence[Mapping[str, Any]]]) -> str:
    """What keeps these of the status document in the mesh, None = it does not tell yet.

    "" once this VM's own proxy has forgotten those that it listed.
    """
    if services is None:
        return "the agent has not told of it"
    for s in services:
        if s["entry_health"] == "True":
            return f"the entry of {s['name']} is not written"
        if s["listed"] is not None and (s["listed"] or not s["seen"]):
            return f"the mesh has not seen {s['name']} go"
    return ""


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
