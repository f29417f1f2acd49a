"""Does what the decision says, one object at a time, each read again before it is touched.

A cache is never acted on: what is written carries the version that was just read, so whoever wrote
in between wins. It acts only as the leader, and only while its watch of the Leases lives.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Optional

from vmoor.errors import Conflict, Forbidden, Rejected, Unavailable, VmoorError
from vmoor.model import entry, event, lease
from vmoor.model.entry import Object
from vmoor.model.reaper import LEASE_EXPIRED, MANAGER, seen
from vmoor.model.reaper.decision import Brake, Decision, Scope, decide
from vmoor.model.reaper.election import Leadership
from vmoor.model.reaper.seen import Endpoint, Grave, Pulse, Vm
from vmoor.ports import Clock, Cluster, Kind
from vmoor.reaper.watcher import Sight
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

CALL_S = 3.0
EVENT_S = 0.5
REST_S = 1.0  # how long a healed or loosened brake may go unseen
# 50 objects a second, so that a large removal leaves the API server to the beats of the living.
BATCH = 25
BATCH_S = 0.5
REFUSED_S = 60.0
FEW = 3  # healthy endpoints left: the API server is asked whether they are
PASS_S = 20.0  # far below the loop's patience
# Pauses per pass: of 10 000 VMs that beat late one crosses a line every few milliseconds, and each
# pass over them takes a tenth of a second.
SHARE = 4.0
EDGE_S = 0.001  # past the instant at which a comparison flips


class Reaping:
    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        leadership: Cell[Leadership],
        leases: Cell[Sight[Pulse]],
        entries: Cell[Sight[Endpoint]],
        latency: Cell[float],
        brakes: Cell[tuple[Brake, ...]],
        removals: Cell[int],
        zone_loss: bool,
        cluster: Cluster,
        clock: Clock,
    ) -> None:
        self._leadership = leadership
        self._leases = leases
        self._entries = entries
        self._latency = latency
        self._brakes = brakes
        self._removals = removals
        self._zone_loss = zone_loss
        self._cluster = cluster
        self._clock = clock
        self._absent: dict[Vm, float] = {}  # VMs with entries and no Lease, since when
        self._eased: dict[Scope, float] = {}  # scopes whose brake has ended, and when
        self._told: Collection[str] = ()
        self._aside: dict[str, float] = {}  # what could not be done, and until when it rests
        self._refused: dict[str, VmoorError] = {}
        self._few: Collection[Scope] = ()

    def reconcile(self) -> Settled:
        began = self._clock.now()
        self._note_absent(began)
        words = self._blind(began)
        if words:
            return Settled(words, REST_S, waiting=True)
        decision = self._decide(began)
        if self._note_brakes(decision, began):
            decision = self._decide(began)
        words = self._idle(began)
        if words:  # it knows of the brakes all the same, should it lead soon
            return Settled(words, REST_S, waiting=True)
        self._tell(decision)
        if self._act(decision, began):
            return self._settled("acting", max(0.0, began + BATCH_S - self._clock.now()))
        now = self._clock.now()
        soonest = max(EDGE_S, SHARE * (now - began))
        left = decision.wake + EDGE_S - now
        return self._settled(f"{decision.lost} VMs lost", min(REST_S, max(soonest, left)))

    def _settled(self, words: str, again: float) -> Settled:
        if not self._refused:
            return Settled(words, again)
        first = next(iter(self._refused.values()))
        words = f"{words}, {len(self._refused)} objects refuse to change: {first.message}"
        return Settled(words, again, wrong=True, remedy=first.remedy)

    def _act(self, decision: Decision, now: float) -> bool:
        """Whether there was anything to do. One bad object must not keep the others."""
        self._aside = {key: at for key, at in self._aside.items() if at > now}
        self._refused = {key: e for key, e in self._refused.items() if key in self._aside}
        self._few = self._scopes_of_few(decision)
        acts = [(key, act) for key, act in self._acts(decision) if key not in self._aside]
        for key, act in acts[:BATCH]:
            if self._clock.now() - now > PASS_S:
                break
            try:
                act()
            except Conflict:  # judged anew when the watch has told the change
                self._aside[key] = now + REST_S
            except (Rejected, Forbidden) as e:
                log.warning("%s: %s. Remedy: %s", key, e.message, e.remedy)
                self._aside[key], self._refused[key] = now + REFUSED_S, e
        return bool(acts)

    def _scopes_of_few(self, decision: Decision) -> Collection[Scope]:
        """Those of which so little will be left that the cache is not to be trusted."""
        if not decision.out:
            return ()
        left = Counter(_scope(e) for e in self._entries.get().things.values() if e.healthy)
        left.subtract(_scope(e) for e in decision.out)
        return {scope for scope, count in left.items() if count <= FEW}

    def _idle(self, now: float) -> str:
        """Why nothing may be done now; "" = it may."""
        return "stands by" if not self._leadership.get().acts(now) else self._blind(now)

    def _blind(self, now: float) -> str:
        if not self._entries.get().live or self._leases.get().silent(now):
            return "sees nothing: a watch is silent"
        return ""

    def _decide(self, now: float) -> Decision:
        sight, entries = self._leases.get(), self._entries.get()
        pulses = [*sight.things.values()]
        pulses += [Pulse(vm, changed=since, absent=True) for vm, since in self._absent.items()]
        confirmed = {pulse.vm for pulse in pulses if pulse.confirmed}
        return decide(
            now, sight.t0, pulses, entries.things.values(), confirmed, self._zone_loss,
            self._latency.get(), self._eased,
        )  # fmt: skip

    def _note_brakes(self, decision: Decision, now: float) -> bool:
        """Whether one has just ended."""
        before = {brake.scope for brake in self._brakes.get()}
        kept = {s: at for s, at in self._eased.items() if now - at < lease.LONGEST_S}
        ended = before - {brake.scope for brake in decision.brakes}
        self._eased = {**kept, **dict.fromkeys(ended, now)}
        self._brakes.set(tuple(decision.brakes))
        return bool(ended)

    def _note_absent(self, now: float) -> None:
        known = {pulse.vm for pulse in self._leases.get().things.values()}
        absent = {e.vm for e in self._entries.get().things.values()} - known
        self._absent = {vm: self._absent.get(vm, now) for vm in absent}

    def _acts(self, decision: Decision) -> Sequence[tuple[str, Callable[[], None]]]:
        return [
            *((f"entry {e.vm.namespace}/{e.name}", partial(self._out, e)) for e in decision.out),
            *((f"old entry {e.vm.namespace}/{e.name}", partial(self._delete, e))
              for e in decision.delete),
            *((f"lease of {p.vm}", partial(self._forget, p)) for p in decision.forget),
        ]  # fmt: skip

    def _out(self, endpoint: Endpoint) -> None:
        namespace = self._cluster.within(endpoint.vm.namespace)
        pulse, _ = self._lease(endpoint.vm)
        thing = self._entry(endpoint)
        if thing is None or entry.health_status(thing) != "True":
            return
        if not pulse.confirmed and _scope(endpoint) in self._few:
            self._require_another(endpoint)
        since = f"no beat since {pulse.renewed}" if pulse.renewed else "it has no Lease"
        body = entry.with_health(
            thing,
            status=False,
            reason=LEASE_EXPIRED,
            message=f"the VM is silent: {since}",
            wall=self._clock.wall(),
        )
        written = namespace.apply(
            Kind.ENTRY, body, force=True, status=True, manager=MANAGER, deadline=self._deadline()
        )
        self._removals.set(self._removals.get() + 1)
        log.warning("Entry %s of VM %s: out of the mesh, %s", endpoint.name, endpoint.vm, since)
        self._event(namespace, written, f"out of the mesh, {since}")

    def _require_another(self, endpoint: Endpoint) -> None:
        """That of the cache may be gone: its watch can be silent for minutes."""
        found, _ = self._cluster.within(endpoint.vm.namespace).list(
            Kind.ENTRY, f"{entry.SERVICE}={endpoint.service}", deadline=self._deadline()
        )
        there = [seen.endpoint(thing, 0.0) for thing in found]
        if not any(e and e.healthy and e.name != endpoint.name for e in there):
            raise Conflict(f"cannot take out {endpoint.name}: it is the last one after all")

    def _delete(self, endpoint: Endpoint) -> None:
        pulse, lease_object = self._lease(endpoint.vm)
        thing = self._entry(endpoint)
        if thing is None or entry.health_status(thing) == "True":
            return
        if lease_object is not None and not pulse.drained:  # who went on purpose is no loss
            self._bury(pulse, lease_object, endpoint)
        self._remove(Kind.ENTRY, endpoint.vm, thing)
        log.warning("Entry %s of VM %s: deleted, its VM is dead", endpoint.name, endpoint.vm)

    def _bury(self, pulse: Pulse, thing: Object, endpoint: Endpoint) -> None:
        """First the tombstone, then the delete: between them nothing is forgotten."""
        old = pulse.grave or Grave()
        services = tuple(sorted({*old.services, endpoint.service}))
        grave = Grave(services, old.zone or endpoint.zone)
        if grave == old:
            return
        meta = entry.metadata(thing)
        marks = {**entry.notes(thing), lease.TOMBSTONE: grave.text()}
        body = {**thing, "metadata": {**meta, "annotations": marks}}
        self._cluster.within(endpoint.vm.namespace).replace(
            Kind.LEASE, body, deadline=self._deadline()
        )

    def _forget(self, pulse: Pulse) -> None:
        _, thing = self._lease(pulse.vm)
        if thing is not None:
            self._remove(Kind.LEASE, pulse.vm, thing)
            log.info("Lease of VM %s: deleted, nothing is left of it", pulse.vm)

    def _lease(self, vm: Vm) -> tuple[Pulse, Optional[Object]]:
        """As the API server has it now. Raises Conflict when it is not what was judged."""
        name = lease.lease_name(vm.name)
        known = self._leases.get().find((vm.namespace, name))
        thing = self._cluster.within(vm.namespace).get(Kind.LEASE, name, deadline=self._deadline())
        there = seen.pulse(thing, 0.0) if thing is not None else None
        if known is None and thing is None:
            return Pulse(vm, absent=True), None
        if known is None or there is None or _judged(known) != _judged(there):
            raise Conflict(f"cannot act on {vm}: its Lease has changed")
        return there, thing

    def _entry(self, endpoint: Endpoint) -> Optional[Object]:
        """As the API server has it now; None when it is no longer this one, or not marked ours."""
        thing = self._cluster.within(endpoint.vm.namespace).get(
            Kind.ENTRY, endpoint.name, deadline=self._deadline()
        )
        there = seen.endpoint(thing, 0.0) if thing is not None else None
        if there is None or (there.vm, there.service) != (endpoint.vm, endpoint.service):
            return None
        return thing

    def _remove(self, kind: Kind, vm: Vm, thing: Object) -> None:
        self._cluster.within(vm.namespace).delete(
            kind,
            entry.name(thing),
            uid=entry.uid(thing),
            resource_version=entry.version(thing),
            deadline=self._deadline(),
        )

    def _deadline(self) -> float:
        """Of each request: asked again before it whether we may still act."""
        now = self._clock.now()
        words = self._idle(now)
        if words:
            raise Unavailable(f"cannot go on: this reaper {words}")
        return min(CALL_S, self._leadership.get().until - now)

    def _event(self, namespace: Cluster, thing: Object, message: str) -> None:
        """For people only."""
        body = event.event(
            thing, reason="ServiceOut", message=message, warning=True, wall=self._clock.wall()
        )
        with contextlib.suppress(VmoorError):
            namespace.create(Kind.EVENT, body, deadline=EVENT_S)

    def _tell(self, decision: Decision) -> None:
        """Each brake and each spared endpoint once, and when it is over."""
        held = {
            f"Brake on {b.scope}: {b.lost} of {b.members} VMs are lost, so nothing is removed. "
            "It ends when they beat again; if they are dead: vmoor fleet confirm"
            for b in decision.brakes
        }
        names = {line.partition(":")[0] for line in held}
        for line in sorted(held):
            if line.partition(":")[0] not in self._told:
                log.warning("%s", line)
        for name in sorted(set(self._told) - names):
            log.info("%s: over", name)
        self._told = names


def _scope(endpoint: Endpoint) -> Scope:
    return Scope(endpoint.vm.namespace, endpoint.service)


def _judged(pulse: Pulse) -> Pulse:
    """What of a Lease the decision looked at, without our own instants."""
    return replace(pulse, changed=0.0, buried=0.0, grave=None)
