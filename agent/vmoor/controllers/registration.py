"""One WorkloadEntry per service, and what its Healthy condition says. It converges.

Every write is made against the version that was judged, under the lease, and only to entries that
carry this VM's owner mark; a 409 means read that one again and judge anew. In a steady state it
sends nothing: the watch says what others did. Out of the mesh is always written before into it.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from vmoor import errors
from vmoor.config.settings import Settings
from vmoor.errors import VmoorError
from vmoor.model import claim, entry, event, lease, record, registration
from vmoor.model.claim import Claimed, State
from vmoor.model.credential import Credentials
from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained
from vmoor.model.entry import EntryState, Object, Owner
from vmoor.model.health import Health, Verdict
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState
from vmoor.model.registration import Known, Observed, Place, Step, Verb, Wish
from vmoor.model.selection import Selection
from vmoor.model.service import Service
from vmoor.ports import Clock, Cluster, Files, Kind
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

STATE = "/var/lib/vmoor/verdicts.json"
CALL_S = 5.0  # one request
PASS_S = 20.0  # all requests of a pass, far below the loop's patience
EVENT_S = 0.5
CALM_S = 300.0  # the watch wakes us
BLIND_S = 30.0  # without a watch everything is read again this often
LAPSED_S = 1.0
RETIRE_S = 0.5  # from Healthy=False to the delete: time for the mesh to forget the endpoint
ROUNDS = 8  # steps to converge one entry: at most 3, and as many again for those who interfere

# Which of several failures a pass reports: the one that decides about the others.
SEVERITY = (
    errors.Unauthenticated,
    errors.Unavailable,
    errors.Forbidden,
    errors.Rejected,
    errors.Conflict,
)


class Registration:
    """Woken by verdicts, services, the lock and the watch; each pass looks at everything."""

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        discovered: Cell[Discovered],
        verdicts: Cell[Mapping[str, Verdict]],
        drained: Cell[Drained],
        proxy_state: Cell[ProxyState],
        lock: Cell[Lock],
        beat: Cell[Beat],
        claimed: Cell[Claimed],
        observed: Cell[Observed],
        registered: Cell[tuple[EntryState, ...]],
        selections: Cell[Mapping[str, Selection]],
        machine: Machine,
        cluster: Cluster,
        files: Files,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._discovered = discovered
        self._verdicts = verdicts
        self._drained = drained
        self._proxy_state = proxy_state
        self._lock = lock
        self._beat = beat
        self._claimed = claimed
        self._observed = observed
        self._registered = registered
        self._selections = selections
        self._machine = machine
        self._cluster = cluster
        self._files = files
        self._clock = clock
        self._known: dict[str, Known] = {}
        self._entered: dict[str, float] = {}
        self._label = ""  # of the present address, as claim.form
        self._lists = 0
        self._read_at = 0.0
        self._retiring: dict[str, float] = {}
        self._pass_ends = 0.0
        self._ending = False
        self._events: list[Object] = []

    def end(self) -> None:
        """From the main thread, before a leave: a pass that still runs writes no more."""
        self._ending = True

    def reconcile(self) -> Settled:
        settings, credentials = self._settings.get(), self._credentials.get()
        found = self._discovered.get()
        if settings is None or credentials is None:
            return Settled("waiting for identity", CALM_S, waiting=True)
        if not found.address:
            return Settled("waiting for discovery", CALM_S, waiting=True)
        self._pass_ends = self._clock.now() + PASS_S
        place = self._place(settings, credentials, found)
        self._learn()
        lock = self._lock.get()
        if not lease.may_write(lock, self._beat.get(), self._clock.now()):
            if lock.rebooted:
                self._exclude_former(place, found)
            again = LAPSED_S if lock.held else CALM_S
            return Settled(f"waiting for the lease: {lock.words}", again, waiting=True)
        self._label = claim.form(place.address, place.network)
        return self._converge(place, found)

    def _place(self, settings: Settings, credentials: Credentials, found: Discovered) -> Place:
        workload = settings.workload
        return Place(
            owner=Owner(self._machine.name, workload.service_account),
            holder=self._machine.holder,
            workload=workload,
            address=found.address,
            network=settings.mesh.network or credentials.facts.istio.network,
            locality=found.locality,
            labels=found.labels,
        )

    def _converge(self, place: Place, found: Discovered) -> Settled:
        fresh = self._fresh()
        wishes = self._wishes(place, found, fresh=fresh)
        results = [self._try(wish, place.owner) for wish in wishes]
        mine = [s for (s, _), wish in zip(results, wishes) if wish.body is not None]
        self._registered.set(tuple(sorted(mine, key=lambda s: s.service)))
        self._send_events()
        failures = [failure for _, failure in results if failure is not None]
        if failures:
            raise min(failures, key=_severity)
        if fresh:
            self._remember()
        return self._outcome(place, mine)

    def _try(self, wish: Wish, owner: Owner) -> tuple[EntryState, Optional[VmoorError]]:
        """One bad entry must not block the others, but a refused token blocks all."""
        try:
            return self._settle(wish, owner), None
        except errors.Unauthenticated:
            raise
        except VmoorError as e:
            return self._state(wish, "pending", e.message), e

    def _outcome(self, place: Place, states: Sequence[EntryState]) -> Settled:
        refused = [s for s in states if s.state == "refused"]
        if refused:
            others = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
            raise errors.Rejected(
                f"cannot register {refused[0].service}: {refused[0].words}{others}",
                remedy=f"kubectl -n {place.workload.namespace} delete workloadentry "
                f"{refused[0].name}, or rename the service",
            )
        again = CALM_S if self._observed.get().live else BLIND_S
        if self._retiring:
            soonest = min(self._retiring.values()) + RETIRE_S
            again = max(0.0, soonest - self._clock.now())
        if self._claim() is not State.OURS:
            return Settled(f"waiting for the address {place.address}", again, waiting=True)
        drained = self._drained.get()
        if drained.hold:
            who = drained.notice.who if drained.notice else "cloud's metadata"
            return Settled(f"waiting for the {who}", again, waiting=True)
        count = len(states)
        return Settled(f"{count} entr{'y' if count == 1 else 'ies'} in place", again)

    def _wishes(self, place: Place, found: Discovered, *, fresh: bool) -> Sequence[Wish]:
        verdicts, selections = self._verdicts.get(), self._selections.get()
        drained = self._drained.get()
        wanted = {
            wish.name: wish
            for wish in (
                Wish(
                    name=registration.entry_name(service.name, place.owner.vm),
                    service=service.name,
                    body=registration.desired(
                        service, place, degraded=self._degraded(service, verdicts, place)
                    ),
                    word=registration.word(
                        verdicts.get(service.name), fresh=fresh, drained=drained.of(service.name)
                    ),
                    selection=selections.get(service.name),
                )
                for service in found.services
            )
        }
        gone = [
            Wish(name, name, None, None)
            for name, known in self._known.items()
            if name not in wanted and not known.absent
        ]
        return sorted([*gone, *wanted.values()], key=_into_the_mesh)

    def _degraded(self, service: Service, verdicts: Mapping[str, Verdict], place: Place) -> bool:
        """Before the first verdict the weight stays as the cluster has it."""
        verdict = verdicts.get(service.name)
        if verdict is not None and verdict.health is not Health.UNKNOWN:
            return verdict.degraded
        name = registration.entry_name(service.name, place.owner.vm)
        thing = self._known.get(name, Known()).thing
        return thing is not None and registration.is_lowered(service, thing)

    def _settle(self, wish: Wish, owner: Owner) -> EntryState:
        """Step by step until nothing is left to do for this entry."""
        if wish.body is not None:
            self._retiring.pop(wish.name, None)
        for _ in range(ROUNDS):
            have = self._have(wish.name)
            step = self._step(wish, have, owner)
            if step is None and have is None and wish.body is not None:
                return self._state(wish, "pending", "waiting for the address")
            if step is None:
                self._retiring.pop(wish.name, None)
                return self._state(wish, "registered")
            if step.verb is Verb.REFUSE:
                self._doubt(wish.name)
                return self._state(wish, "refused", entry.described_owner(step.body))
            if step.verb is Verb.DELETE and not self._retired(wish.name):
                return self._state(wish, "pending", "leaving the mesh")
            with contextlib.suppress(errors.Conflict):
                self._carry_out(step, wish.name)
        raise errors.Conflict(f"cannot settle {wish.name}: somebody else keeps writing it")

    def _step(self, wish: Wish, have: Optional[Object], owner: Owner) -> Optional[Step]:
        state, wall = self._claim(), self._clock.wall()
        if state is State.OURS and not self._drained.get().hold:
            return registration.step(wish, have, owner, wall)
        return registration.restrained(wish, have, owner, wall, taken=state is State.TAKEN)

    def _claim(self) -> State:
        """It may change within a pass."""
        return self._claimed.get().under(self._label, self._lock.get())

    def _carry_out(self, step: Step, name: str) -> None:
        if self._ending:
            raise errors.Unavailable(f"cannot write {name}: the agent stops")
        if not lease.may_write(self._lock.get(), self._beat.get(), self._clock.now()):
            raise errors.Unavailable(f"cannot write {name}: the lease has lapsed")
        self._write(step, name)

    def _write(self, step: Step, name: str) -> None:
        """Raises Conflict when the entry is no more what was judged; it is then read anew."""
        try:
            self._keep(name, self._send(step, name))
        except errors.Conflict:
            self._doubt(name)
            raise
        self._tell(step, name)

    def _send(self, step: Step, name: str) -> Optional[Object]:
        if step.verb is not Verb.DELETE:
            return self._cluster.apply(
                Kind.ENTRY,
                step.body,
                # Never by force what did not exist: it may be somebody else's by now.
                force=step.verb is not Verb.CREATE,
                status=step.verb is Verb.STATUS,
                deadline=self._deadline(),
            )
        self._cluster.delete(
            Kind.ENTRY,
            name,
            uid=entry.uid(step.body),
            resource_version=entry.version(step.body),
            deadline=self._deadline(),
        )
        self._retiring.pop(name, None)
        return None

    def _tell(self, step: Step, name: str) -> None:
        if step.word is None:
            if step.verb is not Verb.STATUS:  # who selects it: told by who found out
                log.info("Entry %s: %s", name, step.verb.value)
            return
        healthy, message = step.word.healthy, step.word.message
        if healthy:
            self._entered[name] = self._clock.now()
            fields = {"VMOOR_EVENT": "entry.in", "VMOOR_ENTRY": name}
            log.info("Entry %s: into the mesh, %s", name, message, extra=fields)
        else:
            fields = {"VMOOR_EVENT": "entry.out", "VMOOR_ENTRY": name}
            log.warning("Entry %s: out of the mesh, %s", name, message, extra=fields)
        thing = self._known[name].thing
        if thing is not None:
            reason, wall = "ServiceIn" if healthy else "ServiceOut", self._clock.wall()
            self._events.append(
                event.event(thing, reason=reason, message=message, warning=not healthy, wall=wall)
            )

    def _send_events(self) -> None:
        """For people only, after all else: what cannot be sent soon is not sent."""
        events, self._events = self._events, []
        with contextlib.suppress(VmoorError):
            for body in events:
                self._cluster.create(Kind.EVENT, body, deadline=EVENT_S)

    def _retired(self, name: str) -> bool:
        now = self._clock.now()
        return now - self._retiring.setdefault(name, now) >= RETIRE_S

    def _state(self, wish: Wish, state: str, words: str = "") -> EntryState:
        thing = self._known.get(wish.name, Known()).thing
        health = entry.health_status(thing) if thing and state != "refused" else ""
        entered = self._entered.get(wish.name, 0.0)
        return EntryState(wish.service, wish.name, state, health, words, entered)

    def _exclude_former(self, place: Place, found: Discovered) -> None:
        names = [registration.entry_name(s.name, place.owner.vm) for s in found.services]
        for name in dict.fromkeys([*names, *self._known]):
            have = self._have(name)
            wall = self._clock.wall()
            step = registration.exclusion(have, place, self._machine, wall) if have else None
            if step is not None:
                self._write(step, name)

    def _learn(self) -> None:
        """Take over what the watch saw; without one, read everything again now and then."""
        observed, now = self._observed.get(), self._clock.now()
        if not observed.live and now - self._read_at >= BLIND_S:
            self._read_at = now
            for name in [name for name, known in self._known.items() if not known.absent]:
                self._doubt(name)
        if observed.lists != self._lists:
            self._lists = observed.lists
            for name in self._known.keys() - observed.sightings.keys():
                self._doubt(name)
        for name, sighting in observed.sightings.items():
            self._known[name] = self._known.get(name, Known()).seen(sighting)

    def _have(self, name: str) -> Optional[Object]:
        if self._known.get(name, Known()).stale:
            self._keep(name, self._cluster.get(Kind.ENTRY, name, deadline=self._deadline()))
        return self._known[name].thing

    def _keep(self, name: str, thing: Optional[Object]) -> None:
        version = entry.version(thing) if thing else ""
        self._known[name] = self._known.get(name, Known()).now(thing, version)

    def _doubt(self, name: str) -> None:
        self._known[name] = self._known.get(name, Known()).doubted()

    def _deadline(self) -> float:
        ends, beat = self._pass_ends, self._beat.get()
        if self._lock.get().held:  # what lands after the lease may land on somebody else's entry
            ends = min(ends, beat.at + beat.duration)
        left = ends - self._clock.now()
        if left <= 0:
            raise errors.Unavailable("cannot finish this pass: the API server is too slow")
        return min(CALL_S, left)

    def _fresh(self) -> bool:
        """Whether the cluster's last word is from before this boot or this proxy."""
        kept = self._kept()
        running = self._proxy_state.get().invocation_id  # "" = not known yet
        return kept.get("boot_id") != self._machine.boot_id or (
            bool(running) and kept.get("invocation_id") != running
        )

    def _remember(self) -> None:
        note = {
            "boot_id": self._machine.boot_id,
            "invocation_id": self._proxy_state.get().invocation_id,
        }
        self._files.write(STATE, json.dumps(note).encode(), 0o600, durable=True)

    def _kept(self) -> Mapping[str, Any]:
        return record.parsed(self._files.read(STATE))


def _severity(error: VmoorError) -> int:
    kinds = [i for i, kind in enumerate(SEVERITY) if isinstance(error, kind)]
    return kinds[0] if kinds else len(SEVERITY)


def _into_the_mesh(wish: Wish) -> tuple[bool, str]:
    """The sort key: what goes out comes first."""
    return (wish.body is not None and (wish.word is None or wish.word.healthy), wish.name)
