"""Takes and keeps the election's Lease. It decides nothing but who acts."""

from __future__ import annotations

import logging
from collections import deque
from typing import Optional

from vmoor.errors import Conflict, VmoorError
from vmoor.model import lease
from vmoor.model.entry import Object
from vmoor.model.reaper import MANAGER, NAMESPACE, election
from vmoor.model.reaper.election import LEASE_S, RENEW_S, RETRY_S, Leadership, Record
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALL_S = 5.0
SAMPLES = 8  # of a write's latency: the last 16 s of a leader


class Election:
    def __init__(
        self,
        identity: str,
        leadership: Cell[Leadership],
        latency: Cell[float],
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._leadership = leadership
        self._latency = latency
        self._cluster = cluster.within(NAMESPACE)
        self._clock = clock
        self._lease: Optional[Object] = None  # ours, as last written; None = look first
        self._record: Optional[Record] = None
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def reconcile(self) -> Settled:
        try:
            return self._try()
        except VmoorError as e:
            self._lease = None
            if isinstance(e, Conflict):  # somebody else was faster, or our timed-out PUT was
                return Settled(self._words(), RETRY_S)
            raise
        finally:
            self._step_down()

    def release(self) -> None:
        """At the end, so that the next one need not wait. All loops have ended."""
        if self._leadership.get().acts(self._clock.now()) and self._lease is not None:
            self._leadership.set(Leadership())
            self._put(self._lease, "")

    def _try(self) -> Settled:
        have = self._lease
        if have is None:
            have = self._cluster.get(Kind.LEASE, MANAGER, deadline=CALL_S)
            now = self._clock.now()
            if have is not None:
                self._record = election.observe(self._record, have, now)
                if not election.may_take(self._record, self._identity, now):
                    was = self._leadership.get()
                    self._leadership.set(Leadership(until=was.until, holder=self._record.holder))
                    return Settled(self._words(), RETRY_S)
        began = self._clock.now()
        self._lease = self._put(have, self._identity)
        self._record = election.observe(self._record, self._lease, began)
        self._sample(self._clock.now() - began)
        if not self._leadership.get().leader:
            log.info("This reaper, %s, leads", self._identity)
        self._leadership.set(Leadership(True, began + RENEW_S, self._identity))  # noqa: FBT003
        return Settled(self._words(), RETRY_S)

    def _put(self, old: Optional[Object], identity: str) -> Object:
        renewed = lease.micro_time(self._clock.wall())
        write = self._cluster.create if old is None else self._cluster.replace
        return write(Kind.LEASE, election.body(old, identity, renewed), deadline=CALL_S)

    def _step_down(self) -> None:
        lead = self._leadership.get()
        if lead.leader and not lead.acts(self._clock.now()):
            log.warning("This reaper leads no more: its Lease was not renewed for %g s", RENEW_S)
            self._leadership.set(Leadership())

    def _sample(self, seconds: float) -> None:
        self._samples.append(seconds)
        self._latency.set(sum(self._samples) / len(self._samples))

    def _words(self) -> str:
        lead = self._leadership.get()
        if lead.leader:
            return "leads"
        return f"stands by while {lead.holder} leads; at most {LEASE_S} s after its end it leads"
