"""Who of several reapers acts: client-go's leader election, with its timings.

A candidate takes the Lease when it has stood for 15 s before the candidate's own eyes; a leader
that could not renew it for 10 s acts no more. The 5 s between are for writes on their way and for
clocks that run differently.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from vmoor.model import lease
from vmoor.model.entry import Object
from vmoor.model.reaper import LABELS, MANAGER

# client-go's tools/leaderelection, as kube-controller-manager uses it.
LEASE_S = 15
RENEW_S = 10.0
RETRY_S = 2.0


class Leadership(NamedTuple):
    """`until`: when a leader that renews no more must stop acting."""

    leader: bool = False
    until: float = 0.0
    holder: str = ""

    def acts(self, now: float) -> bool:
        return self.leader and now < self.until


class Record(NamedTuple):
    """The election's Lease as observed, and since when it has looked so."""

    holder: str
    renewed: str
    lasts: float
    since: float


def observe(record: Optional[Record], thing: Object, now: float) -> Record:
    holder, renewed = lease.holder_of(thing), lease.renewed_of(thing)
    if record is not None and (record.holder, record.renewed) == (holder, renewed):
        return record
    # One that a person edited must not lock everybody out.
    lasts = min(LEASE_S, lease.believed(thing))
    return Record(holder, renewed, lasts, now)


def may_take(record: Record, identity: str, now: float) -> bool:
    return record.holder in ("", identity) or now >= record.since + record.lasts


def body(old: Optional[Object], identity: str, renewed: str) -> Object:
    """The Lease to create, or to put over `old`; nobody's when `identity` is empty.

    It carries the label that the reaper's watch selects by: each renewal comes back through it
    and tells that the watch lives.
    """
    term = lease.tenure(old, identity, LEASE_S if identity else 1, renewed)
    return lease.put_over(old, MANAGER, LABELS, term)
