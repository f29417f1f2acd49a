"""Keeps the VM's Lease: the heartbeat, and the lock on the VM's name.

It writes the Lease and nothing else, in a loop of its own, so that nothing can delay a beat.
What is decided is decided in `model.lease`; each beat carries the label that is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Optional

from vmoor import __version__
from vmoor.config.settings import Settings
from vmoor.errors import Conflict, Rejected, Unavailable
from vmoor.model import claim, drain, lease
from vmoor.model.credential import Credentials
from vmoor.model.drain import Drained
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Beat, Judgement, Lock, Pace, Seen, Verdict
from vmoor.model.machine import Machine
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALM_S = 30.0
REMEDY = "stop the other machine, or give this one another vm.name"


class Heartbeat:
    """`random` draws from 0 to 1."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        label: Cell[Optional[str]],
        lock: Cell[Lock],
        beat: Cell[Beat],
        pace: Cell[Pace],
        drained: Cell[Drained],
        machine: Machine,
        cluster: Cluster,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._label = label
        self._lock = lock
        self._beat = beat
        self._pace = pace
        self._drained = drained
        self._machine = machine
        self._cluster = cluster
        self._clock = clock
        self._random = random
        self._lease: Optional[Object] = None  # ours, as last written; None = look first
        self._seen: Optional[Seen] = None
        self._sent = ""  # renewTime of the last PUT, whatever became of it
        self._sent_at = 0.0
        self._paced = Pace()  # as sent then
        self._lasts: float = lease.DURATION_S
        self._due = 0.0  # the next beat of the rhythm; 0 = none yet

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None:
            return Settled("waiting for the configuration", CALM_S, waiting=True)
        if self._credentials.get() is None:
            return Settled("waiting for identity", CALM_S, waiting=True)
        owner = Owner(self._machine.name, settings.workload.service_account)
        self._tell_lapse()
        if self._lease is None:
            return self._look(owner, alive=False)
        try:
            return self._write(self._lease, owner)
        except Conflict:
            return self._look(owner, alive=True)

    def last_beat(self, deadline: float) -> None:
        """Room for a restart or an upgrade, or for a leave to end within the lease."""
        settings, old = self._settings.get(), self._lease
        if settings is None or old is None or not self._lock.get().held:
            return
        owner = Owner(self._machine.name, settings.workload.service_account)
        self._sent_at = self._clock.now()
        body = self._body(old, owner, lease.LAST_BEAT_S)
        self._lease = self._cluster.replace(Kind.LEASE, body, deadline=deadline)
        self._confirm()

    def _confirm(self) -> None:
        """The last PUT went through."""
        interval = self._paced.interval
        self._beat.set(Beat(at=self._sent_at, interval=interval, duration=self._lasts))

    def _tell_lapse(self) -> None:
        lock, lapsed = self._lock.get(), self._clock.now() - self._end_of_lease()
        if lock.held and lapsed >= 0:
            words = "the lease has lapsed: no beat reached the API server in time"
            self._lock.set(Lock(words=words))

    def _end_of_lease(self) -> float:
        beat = self._beat.get()
        return beat.at + beat.duration

    def _look(self, owner: Owner, *, alive: bool) -> Settled:
        self._lease = None
        asked = self._clock.now()
        name = lease.lease_name(self._machine.name)
        found = self._cluster.get(Kind.LEASE, name, deadline=self._deadline())
        judged = lease.judge(
            found,
            machine=self._machine,
            owner=owner,
            sent=self._sent,
            seen=self._seen,
            asked=asked,
            now=self._clock.now(),
            alive=alive,
        )
        self._seen = judged.seen
        if judged.verdict in (Verdict.CREATE, Verdict.BEAT):
            if judged.confirms:
                self._confirm()
            return self._write(found, owner)
        return self._stand_back(judged, found)

    def _stand_back(self, judged: Judgement, found: Optional[Object]) -> Settled:
        holder = lease.holder_of(found or {})
        rebooted = lease.same_machine(holder, self._machine)
        refused = judged.verdict is Verdict.REFUSE
        # The words of a watch count seconds: the lock's must not, or each look would ring.
        words = judged.words if refused else f"looking whether {holder} still lives"
        self._lock.set(Lock(refused=refused, words=words, rebooted=rebooted))
        if refused:
            raise Rejected(f"cannot use this VM's name: {judged.words}", remedy=REMEDY)
        return Settled(judged.words, judged.again, waiting=True)

    def _write(self, old: Optional[Object], owner: Owner) -> Settled:
        self._sent_at = self._clock.now()
        body = self._body(old, owner)
        write = self._cluster.create if old is None else self._cluster.replace
        try:
            self._lease = write(Kind.LEASE, body, deadline=self._deadline())
        except (Conflict, Unavailable):
            # What had no answer may have gone through. Then our version is old, and the refusal
            # of another PUT as long in coming; a look shows our own beat.
            self._lease = None
            raise
        self._seen = None
        self._confirm()
        lock = self._lock.get()
        if not lock.held:
            log.info("Holding the lease %s", lease.lease_name(self._machine.name))
        since = lock.since if lock.held else self._sent_at
        self._lock.set(Lock(held=True, words="held", since=since, label=claim.carried(body)))
        return Settled("beating", self._until_next())

    def _body(self, old: Optional[Object], owner: Owner, least: float = 0.0) -> Object:
        self._paced = self._pace.get()
        self._sent = lease.micro_time(self._clock.wall())
        self._lasts = max(least, self._paced.duration)
        body = lease.body(
            old,
            machine=self._machine,
            owner=owner,
            duration=self._lasts,
            renewed=self._sent,
            annotations={lease.VERSION: __version__, **drain.marks(self._drained.get())},
        )
        return claim.carrying(body, claim.wanted(self._label.get(), old, self._machine))

    def _deadline(self) -> float:
        beat = self._beat.get()
        return lease.beat_deadline(beat if beat.at else None, self._clock.now())

    def _until_next(self) -> float:
        interval, sent = self._paced.interval, self._sent_at
        if not self._due:  # machines that were started together must not beat together
            self._due = sent + interval * self._random()
        elif not sent < self._due <= sent + interval:  # else an extra beat, out of the rhythm
            self._due = sent + lease.next_beat(interval, self._random())
        return max(0.0, self._due - self._clock.now())
