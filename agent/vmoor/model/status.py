"""The one document that `vmoor status` shows, and the sentence that systemd shows.

Pure: a snapshot of what every loop and cell says goes in. Instants that go in are Clock.now()
seconds or Unix seconds as their names say; instants in the document are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from vmoor.model import entry
from vmoor.model.discovered import Discovered
from vmoor.model.entry import EntryState
from vmoor.model.health import Health, Verdict
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState
from vmoor.model.service import Service, Workload
from vmoor.model.sight import Sight


@dataclass(frozen=True)
class Step:
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
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    entries: Sequence[EntryState] = ()
    sights: Mapping[str, Sight] = field(default_factory=dict)
    before: bool = False  # it was moored at the last look


SIGHT_S = 10.0  # a healthy service that our own Envoy does not list after that is told
# The order in which one step waits for the other: the first that is not fine is the cause.
ORDER = ("config", "identity", "discovery", "proxy", "heartbeat", "health", "registration")
# No step waits for these, so they are a cause only when all of the others are fine.
SOURCES = ("consul", "file", "exec")


def moored(snap: Snapshot) -> bool:
    """Credentials valid, proxy live, lease fresh, every healthy service found and registered."""
    healthy = [name for name, v in snap.verdicts.items() if v.health is Health.HEALTHY]
    written = {e.service for e in snap.entries if e.state == "registered" and e.health == "True"}
    known = {s.name for s in snap.discovered.services}
    judged = {name for name, v in snap.verdicts.items() if v.health is not Health.UNKNOWN}
    return (
        snap.credentials
        and snap.proxy.live
        and snap.lock.held
        and snap.discovered.address != ""  # until then no source counts as looked at
        and known <= judged
        and written >= set(healthy)
    )


def blocked_at(snap: Snapshot) -> Optional[Step]:
    """The first step that fails, else the first that waits; None when all are fine."""
    steps = {step.name: step for step in snap.steps}
    for names in (ORDER, SOURCES):
        ordered = [steps[name] for name in names if name in steps]
        for state in ("fail", "wait"):
            for step in ordered:
                if step.state == state:
                    return step
    return None


def state(snap: Snapshot) -> str:
    """One of moored, at-risk, not-moored."""
    # A service that is healthy again is written some 20 ms after its verdict: no reason to cry.
    if not moored(snap) and not (snap.before and blocked_at(snap) is None):
        return "not-moored"
    return "at-risk" if any(step.state == "fail" for step in snap.steps) else "moored"


def headline(snap: Snapshot) -> str:
    """The STATUS= of the unit: one sentence, the cause first, then the remedy."""
    step = blocked_at(snap)
    now = state(snap)
    if now == "moored":
        return _moored_words(snap)
    if step is None:
        return "Mooring"
    name = "Moored, at risk" if now == "at-risk" else "Not moored"
    verb = "waits" if step.state == "wait" else "fails"
    remedy = f" ({step.remedy})" if step.remedy else ""
    return f"{name}: {step.name} {verb}: {step.words}{remedy}"


def unseen(snap: Snapshot) -> Sequence[str]:
    """Healthy services that this VM's own proxy would send nothing to."""
    return [
        name
        for name, seen in sorted(snap.sights.items())
        if not seen.listed
        and name in snap.verdicts
        and snap.verdicts[name].health is Health.HEALTHY
        and snap.now - snap.verdicts[name].since > SIGHT_S
    ]


def _moored_words(snap: Snapshot) -> str:
    sick = [n for n, v in sorted(snap.verdicts.items()) if v.health is Health.UNHEALTHY]
    services = len(snap.discovered.services)
    if sick:
        first = snap.verdicts[sick[0]]
        return f"Moored, but {', '.join(sick)} out of the mesh: {first.words}"
    hidden = unseen(snap)
    if hidden:
        return (
            f"Moored, but {', '.join(hidden)} not in this VM's own proxy: no ServiceEntry selects "
            f"{entry.SERVICE}={hidden[0]}, or a Sidecar hides it"
        )
    return f"Moored, {services} service{'' if services == 1 else 's'} in the mesh"


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
        "blocked_at": step.name if step and state(snap) != "moored" else None,
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
        },
        "services": [_service(snap, s) for s in snap.discovered.services],
        "problems": list(snap.discovered.problems),
        "reachable": moored(snap) and all(s.listed for s in _healthy_sights(snap)),
        "written": round(snap.now + snap.offset, 3),
    }


def _healthy_sights(snap: Snapshot) -> Sequence[Sight]:
    healthy = [n for n, v in snap.verdicts.items() if v.health is Health.HEALTHY]
    return [snap.sights.get(name, Sight()) for name in healthy]


def _service(snap: Snapshot, service: Service) -> Mapping[str, Any]:
    name = service.name
    verdict = snap.verdicts.get(name)
    there = next((e for e in snap.entries if e.service == name), None)
    seen = snap.sights.get(name)
    return {
        "name": name,
        "source": service.source,
        "ports": dict(service.ports),
        "health": verdict.health.value if verdict else "unknown",
        "reason": verdict.reason if verdict else "",
        "words": verdict.words if verdict else "not checked yet",
        "since": round(verdict.since + snap.offset, 3) if verdict and verdict.since else None,
        "entry": there.state if there else "pending",
        "entry_health": there.health if there else "",
        "entry_words": there.words if there else "",
        "listed": seen.listed if seen else None,
        "seen": round(seen.agreed + snap.offset, 3) if seen and seen.agreed else None,
    }
