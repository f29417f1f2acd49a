"""Whether this VM's address is its alone, among the VMs of its namespace.

It writes nothing: the heartbeat, which never waits for it, carries the label that it wants.
What is decided is decided in `model.claim`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.errors import Forbidden
from vmoor.model import claim
from vmoor.model.claim import Claim, Claimed, State
from vmoor.model.credential import Credentials
from vmoor.model.lease import Lock, Pace, Seen
from vmoor.model.machine import Machine
from vmoor.ports import Clock, Cluster, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

CALM_S = 300.0
NEVER_S = 1e9  # what is proven stays so until the lease lapses
CALL_S = 2.0
REMEDY = "stop the other machine, or give this one its own address, by vm.address or DHCP"


class Claiming:
    """`label`: what the Lease shall carry. `random` draws from 0 to 1."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        address: Cell[str],
        lock: Cell[Lock],
        pace: Cell[Pace],
        label: Cell[Optional[str]],
        claimed: Cell[Claimed],
        machine: Machine,
        cluster: Cluster,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._address = address
        self._lock = lock
        self._pace = pace
        self._label = label
        self._claimed = claimed
        self._machine = machine
        self._cluster = cluster
        self._clock = clock
        self._random = random
        self._others: Mapping[str, Seen] = {}
        self._fresh = False  # the label is written for a claim that is not proven yet
        self._due = 0.0  # of the next look
        self._last = Settled("not started", CALM_S, waiting=True)

    def reconcile(self) -> Settled:
        settings, credentials = self._settings.get(), self._credentials.get()
        if settings is None or credentials is None:
            return Settled("waiting for identity", CALM_S, waiting=True)
        address, lock = self._address.get(), self._lock.get()
        if not address:
            return Settled("waiting for discovery", CALM_S, waiting=True)
        if not lock.held:
            return Settled(f"waiting for the lease: {lock.words}", CALM_S, waiting=True)
        network = settings.mesh.network or credentials.facts.istio.network
        self._enter(claim.form(address, network), lock)
        return self._look(address, lock)

    def _enter(self, label: str, lock: Lock) -> None:
        """What another address, a restart or a lapse leaves of what was known."""
        known, state = self._claimed.get(), State.UNKNOWN
        if (known.label, known.since) == (label, lock.since):
            return
        verifies = lock.label == label
        if known.label != label:
            self._others = {}
        elif known.state is State.TAKEN:
            state = State.TAKEN
        if verifies and self._label.get() is None:  # a restart of the agent
            state = State.OURS
            self._label.set(label)
        # After an outage the whole fleet verifies: not more often than it beats.
        wait = self._pace.get().interval * self._random() if verifies else 0.0
        self._fresh, self._due = False, self._clock.now() + wait
        self._last = Settled("to be verified", wait, waiting=state is not State.OURS)
        self._claimed.set(Claimed(label, lock.since, state))

    def _look(self, address: str, lock: Lock) -> Settled:
        wanted = self._label.get()
        if wanted is not None and lock.label != wanted:
            # One change at a time, or nobody knows what the Lease carries.
            return Settled("waiting for the next beat", CALM_S, waiting=True)
        now = self._clock.now()
        if now >= self._due:
            self._last = self._ask(address, lock)
            self._due = now + self._last.again
        return replace(self._last, again=max(0.0, self._due - now))

    def _ask(self, address: str, lock: Lock) -> Settled:
        label, asked = self._claimed.get().label, self._clock.now()
        try:
            found, _ = self._cluster.list(Kind.LEASE, claim.selector(label), deadline=CALL_S)
        except Forbidden as e:  # manifests of an earlier version
            self._label.set(label)
            self._decide(State.OURS)
            words = f"another VM with our address would not be seen: {e.message}"
            return Settled(words, CALM_S, wrong=True, remedy=e.remedy)
        now = self._clock.now()
        judged = claim.judge(found, machine=self._machine, seen=self._others, asked=asked, now=now)
        self._others = judged.seen
        if judged.words:
            return self._contested(address, judged)
        if lock.label == label:  # and was before we asked
            self._decide(State.OURS)
            return Settled(f"{address} is this VM's", NEVER_S)
        self._fresh = True
        self._label.set(label)
        return Settled("waiting for the next beat", 0.0, waiting=True)

    def _contested(self, address: str, judged: Claim) -> Settled:
        known, fresh = self._claimed.get(), self._fresh
        if judged.lives or self._label.get() != known.label or fresh:
            self._label.set("")
        if judged.lives:
            self._decide(State.TAKEN)
            words = f"cannot register under {address}: {judged.words}"
            return Settled(words, judged.again, wrong=True, remedy=REMEDY)
        self._fresh = False
        if fresh:  # claimed in the same moment: both stand back, for another time each
            return Settled(f"another VM wants {address} too", self._random(), waiting=True)
        return Settled(judged.words, judged.again, waiting=known.state is not State.OURS)

    def _decide(self, state: State) -> None:
        self._fresh = False
        self._claimed.set(replace(self._claimed.get(), state=state))
