"""The one document that `vmoor status` shows, and the sentence that systemd shows.

Pure: a snapshot of what every loop and cell says goes in. Instants that go in are Clock.now()
seconds or Unix seconds as their names say; instants in the document are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained, Order
from vmoor.model.entry import EntryState
from vmoor.model.health import Health, Verdict
from vmoor.model.lease import Beat, Lock, Pace
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState
from vmoor.model.selection import LISTED, Selection
from vmoor.model.service import Service, Workload
from vmoor.model.sight import Sight
from vmoor.model.ttl import SILENT


class Step(NamedTuple):
    """What one loop came to; `since` and `next_try` are Clock.now() seconds, 0 = none."""

    name: str
    state: str  # ok | wait | fail
    words: str
    remedy: str = ""
    since: float = 0.0
    next_try: float = 0.0


@dataclass(frozen=True)
class Snapshot:
    """Everything that is known at one instant. `offset` turns Clock.now() into Unix seconds."""

    version: str
    now: float
    offset: float
    steps: Sequence[Step]
    machine: Optional[Machine] = None
    mesh: str = ""
    workload: Optional[Workload] = None
    discovered: Discovered = field(default_factory=Discovered)
    credentials: bool = False
    identity: Mapping[str, Any] = field(default_factory=dict)
    proxy: ProxyState = field(default_factory=ProxyState)
    lock: Lock = field(default_factory=Lock)
    beat: Beat = field(default_factory=Beat)
    pace: Pace = field(default_factory=Pace)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    entries: Sequence[EntryState] = ()
    sights: Mapping[str, Sight] = field(default_factory=dict)
    selections: Mapping[str, Selection] = field(default_factory=dict)
    drained: Drained = field(default_factory=Drained)
    before: bool = False  # it was moored at the last look


# The order in which one step waits for the other: the first that is not fine is the cause.
ORDER = (
    "config",
    "identity",
    "discovery",
    "proxy",
    "heartbeat",
    "address",
    "health",
    "registration",
)
# Without these what a moored VM has to write anew, say for a new service, is not written.
WRITERS = ("heartbeat", "address", "registration")
NAMED = 3  # services in one sentence


@dataclass(frozen=True)
class Condition:
    """What is wrong with one service of a moored VM."""

    service: str
    type: str  # out | unseen
    words: str
    remedy: str = ""


def moored(snap: Snapshot) -> bool:
    """Credentials valid, proxy live, lease fresh, every healthy service found and registered.

    A drained one is out by somebody's will, which is no failure to moor.
    """
    healthy = _meant_to_be_in(snap)
    known = {s.name for s in snap.discovered.services}
    # Whether an application that speaks for itself has spoken is its own affair.
    judged = {
        name
        for name, v in snap.verdicts.items()
        if v.health is not Health.UNKNOWN or v.reason == SILENT
    }
    return _in_place(snap) and known <= judged and _written(snap) >= set(healthy)


def _written(snap: Snapshot) -> frozenset[str]:
    """The services that are in the mesh, as the API server confirmed it."""
    return frozenset(
        e.service for e in snap.entries if e.state == "registered" and e.health == "True"
    )


def _in_place(snap: Snapshot) -> bool:
    return (
        snap.credentials
        and snap.proxy.live
        and snap.lock.held
        and snap.discovered.address != ""  # until then no source counts as looked at
    )


def _meant_to_be_in(snap: Snapshot) -> Sequence[str]:
    return [
        name
        for name, verdict in snap.verdicts.items()
        if verdict.health is Health.HEALTHY and snap.drained.of(name) is None
    ]


def state(snap: Snapshot) -> str:
    """One of moored, at-risk, drained, not-moored."""
    # A new service has no verdict for a second, and one that is healthy again is written some
    # 20 ms after its verdict: no reason to cry, while nobody hinders the writing.
    writing = all(step.state == "ok" for step in snap.steps if step.name in WRITERS)
    if not moored(snap) and not (snap.before and _in_place(snap) and writing):
        return "not-moored"
    if snap.drained.whole is not None:
        return "drained"
    return "at-risk" if any(step.state == "fail" for step in snap.steps) else "moored"


def blocked_at(snap: Snapshot) -> Optional[Step]:
    """The cause of not being moored, or of the risk; None when no step is to blame."""
    now = state(snap)
    steps = sorted(snap.steps, key=lambda step: _rank(snap, step))
    if now == "not-moored":
        steps = [step for step in steps if _rank(snap, step) < len(ORDER)]
    failing = [step for step in steps if step.state == "fail"]
    waiting = [step for step in steps if step.state == "wait" and now == "not-moored"]
    return next(iter([*failing, *waiting]), None)


def _rank(snap: Snapshot, step: Step) -> int:
    """From len(ORDER) on no other step waits for it: a source that cannot be read."""
    if step.name not in ORDER or (step.name == "discovery" and snap.discovered.address):
        return len(ORDER)
    return ORDER.index(step.name)


def headline(snap: Snapshot) -> str:
    """The STATUS= of the unit: one sentence, the cause first, then the remedy."""
    step = blocked_at(snap)
    now = state(snap)
    if now == "moored":
        return _moored_words(snap)
    order = snap.drained.whole
    if now == "drained" and order and (step is None or step.state != "fail"):
        return f"Drained by {order.who}{'' if snap.drained.notice else ' (vmoor resume)'}"
    if step is None:
        return f"{'Not moored' if snap.before else 'Mooring'}: {_missing(snap)}"
    names = {"at-risk": "Moored, at risk", "drained": "Drained, at risk"}
    name = names.get(now, "Not moored")
    verb = "waits" if step.state == "wait" else "fails"
    remedy = f" ({step.remedy})" if step.remedy else ""
    return f"{name}: {step.name} {verb}: {step.words}{remedy}"


def _missing(snap: Snapshot) -> str:
    """What a VM lacks whose steps have not yet told why."""
    if not snap.credentials:
        return "no credentials yet"
    if not snap.proxy.live:
        return f"the proxy is not ready: {snap.proxy.words}"
    if not snap.lock.held:
        return f"waiting for the lease: {snap.lock.words or 'not held yet'}"
    names = [s.name for s in snap.discovered.services]
    if late := [name for name in names if name not in snap.verdicts]:
        return f"{', '.join(late[:NAMED])} not checked yet"
    if snap.drained.unheard:
        return "the cloud's metadata were not read yet"
    meant = [name for name in names if snap.drained.of(name) is None]
    late = [name for name in meant if name not in _written(snap)]
    return f"{', '.join(late[:NAMED]) or 'services'} not in the mesh yet"


def conditions(snap: Snapshot) -> Sequence[Condition]:
    """What is wrong with the services, those that are out of the mesh first."""
    refused = {e.service: e.words for e in snap.entries if e.state == "refused"}
    out = []
    for name in sorted(service.name for service in snap.discovered.services):
        verdict = snap.verdicts.get(name)
        order = snap.drained.of(name)
        if name in refused:
            out.append(Condition(name, "out", refused[name]))
        elif order is not None:
            remedy = "vmoor resume" if snap.drained.vm else f"vmoor resume --service {name}"
            remedy = "" if snap.drained.notice else remedy
            out.append(Condition(name, "out", f"drained by {order.who}", remedy))
        elif verdict is not None and verdict.health is Health.UNHEALTHY:
            out.append(Condition(name, "out", verdict.words))
    unseen = [
        Condition(name, "unseen", found.words, found.remedy)
        for name, found in sorted(snap.selections.items())
        if found != LISTED
    ]
    return [*out, *unseen]


def _moored_words(snap: Snapshot) -> str:
    found = conditions(snap)
    services = len(snap.discovered.services)
    out = [c for c in found if c.type == "out"]
    unseen = [c for c in found if c.type == "unseen"]
    parts = [f"{c.service} {c.words}" + (f" ({c.remedy})" if c.remedy else "") for c in unseen]
    if len(parts) > 1:
        parts = [f"{parts[0]} (and {len(parts) - 1} more)"]
    if out and services == 1:
        parts.insert(0, f"{out[0].service} out of the mesh: {out[0].words}")
    elif out:
        names = ", ".join(f"{c.service} ({c.words})" for c in out[:NAMED])
        more = f" and {len(out) - NAMED} more" if len(out) > NAMED else ""
        parts.insert(0, f"{len(out)} of {services} services out of the mesh: {names}{more}")
    if parts:
        return f"Moored, but {'; '.join(parts)}"
    inside = len(_written(snap).intersection(s.name for s in snap.discovered.services))
    count = str(services) if inside == services else f"{inside} of {services}"
    return f"Moored, {count} service{'' if services == 1 else 's'} in the mesh"


def document(snap: Snapshot) -> Mapping[str, Any]:
    """What is written to /run/vmoor/status.json and printed by `vmoor status --json`."""
    step = blocked_at(snap)

    def wall(at: float) -> Optional[float]:
        return round(at + snap.offset, 3) if at else None

    machine, workload = snap.machine, snap.workload
    return {
        "version": snap.version,
        "state": state(snap),
        "headline": headline(snap),
        "blocked_at": step.name if step else None,
        "vm": machine.name if machine else None,
        "mesh": snap.mesh,
        "workload": f"{workload.namespace}/{workload.name}" if workload else None,
        "service_account": workload.service_account if workload else None,
        "address": snap.discovered.address or None,
        "locality": snap.discovered.locality or None,
        "steps": [
            {
                "name": s.name,
                "state": s.state,
                "words": s.words,
                "remedy": s.remedy,
                "since": wall(s.since),
                "next_try": wall(s.next_try),
            }
            for s in snap.steps
        ],
        "identity": dict(snap.identity),
        "proxy": {
            "live": snap.proxy.live,
            "words": snap.proxy.words,
            "mode": snap.proxy.mode,
            "since": wall(snap.proxy.since),
            "restart_pending": snap.proxy.restart_pending,
        },
        "heartbeat": {
            "held": snap.lock.held,
            "refused": snap.lock.refused,
            "words": snap.lock.words,
            "at": wall(snap.beat.at),
            "interval": snap.beat.interval,
            "reaper": snap.pace.reaper,
        },
        "services": [_service(snap, s) for s in snap.discovered.services],
        "conditions": [vars(c) for c in conditions(snap)],
        "problems": list(snap.discovered.problems),
        "drained": _order(snap.drained.whole),
        "notice": snap.drained.notice is not None,
        "reachable": snap.drained.whole is None
        and moored(snap)
        and all(snap.sights.get(name, Sight()).listed for name in _meant_to_be_in(snap)),
        "written": round(snap.now + snap.offset, 3),
    }


def _order(order: Optional[Order]) -> Optional[Mapping[str, Any]]:
    return dict(vars(order)) if order else None


def _service(snap: Snapshot, service: Service) -> Mapping[str, Any]:
    name = service.name
    verdict = snap.verdicts.get(name)
    there = next((e for e in snap.entries if e.service == name), None)
    seen = snap.sights.get(name)
    lapse = verdict.lapse if verdict else None
    return {
        "name": name,
        "source": service.source,
        "ports": dict(service.ports),
        "health": verdict.health.value if verdict else "unknown",
        "reason": verdict.reason if verdict else "",
        "words": verdict.words if verdict else "not checked yet",
        "since": round(verdict.since + snap.offset, 3) if verdict and verdict.since else None,
        "lapse": {
            "began": round(lapse.began + snap.offset, 3),
            "ended": round(lapse.ended + snap.offset, 3) if lapse.ended else None,
            "words": lapse.words,
        }
        if lapse
        else None,
        "entry": there.state if there else "pending",
        "entry_health": there.health if there else "",
        "entry_words": there.words if there else "",
        "drained": _order(snap.drained.of(name)),
        "listed": seen.listed if seen else None,
        "seen": round(seen.agreed + snap.offset, 3) if seen and seen.agreed else None,
    }
