"""What Prometheus is told, made of what `vmoor status` tells. Instants are Unix seconds.

What is not known has no sample: a service that was not checked yet is neither well nor ill.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from vmoor.model.flap import REASON
from vmoor.model.health import Health, Verdict
from vmoor.model.status import Snapshot, Step, state

STATES = ("moored", "at-risk", "drained", "not-moored")

Sample = tuple[Mapping[str, str], float]  # labels and value


@dataclass(frozen=True)
class Family:
    """All samples of a name; those of a counter are exposed with the suffix _total."""

    name: str
    words: str
    samples: Sequence[Sample]
    counter: bool = False


def of_agent(snap: Snapshot) -> Iterator[Family]:
    yield build(snap.version)
    if snap.machine and snap.workload:
        labels = {
            "vm": snap.machine.name,
            "mesh": snap.mesh,
            "workload": f"{snap.workload.namespace}/{snap.workload.name}",
            "locality": snap.discovered.locality,
        }
        yield Family("vmoor_vm_info", "Which VM this is.", [(labels, 1)])
    now = state(snap)
    yield Family(
        "vmoor_state",
        "1 for the state that vmoor status shows.",
        [({"state": each}, each == now) for each in STATES],
    )
    yield failing(snap.steps)
    yield _one("vmoor_proxy_live", "Whether the proxy is ready.", snap.proxy.live)
    yield from _heartbeat(snap)
    expiries = ((key, snap.identity.get(f"{key}_expires")) for key in ("vault", "api", "istio"))
    yield Family(
        "vmoor_token_expiry_timestamp_seconds",
        "When a token ends, unless it is renewed.",
        [({"token": key}, at) for key, at in expiries if at],
    )
    yield from _services(snap)


def build(version: str) -> Family:
    return Family("vmoor_build_info", "The version that runs.", [({"version": version}, 1)])


def failing(steps: Iterable[Step]) -> Family:
    return Family(
        "vmoor_step_failing",
        "Whether a step fails; the journal and status tell why, and what to do.",
        [({"step": step.name}, step.state == "fail") for step in steps],
    )


def _heartbeat(snap: Snapshot) -> Iterator[Family]:
    yield _one("vmoor_lease_held", "Whether this VM has its Lease.", snap.lock.held)
    if snap.beat.at:
        yield _one(
            "vmoor_heartbeat_timestamp_seconds",
            "The last beat that the API server took.",
            snap.beat.at + snap.offset,
        )
    yield _one("vmoor_heartbeat_interval_seconds", "How often it shall beat.", snap.pace.interval)
    if snap.pace.reaper in ("watching", "none"):
        watched = snap.pace.reaper == "watching"
        yield _one("vmoor_reaper_watching", "Whether a reaper watches the mesh.", watched)


def _services(snap: Snapshot) -> Iterator[Family]:
    names = sorted(service.name for service in snap.discovered.services)
    judged = {
        name: verdict
        for name in names
        if (verdict := snap.verdicts.get(name)) and verdict.health is not Health.UNKNOWN
    }

    def of_each(name: str, words: str, found: Mapping[str, Optional[float]]) -> Family:
        samples = [({"service": key}, it) for key, it in found.items() if it is not None]
        return Family(f"vmoor_service_{name}", words, samples)

    yield of_each(
        "healthy",
        "Whether it passes and is not held out.",
        {name: v.health is Health.HEALTHY for name, v in judged.items()},
    )
    yield of_each(
        "degraded",
        "Whether a check that is not critical fails.",
        {name: v.degraded for name, v in judged.items()},
    )
    yield of_each(
        "held",
        "Whether it is held out because it fell too often.",
        {name: is_held(v) for name, v in judged.items()},
    )
    yield of_each(
        "last_change_timestamp_seconds",
        "When it became healthy or unhealthy.",
        {name: v.since + snap.offset if v.since else None for name, v in judged.items()},
    )
    yield of_each(
        "drained",
        "Whether somebody, or the cloud, took it out.",
        {name: snap.drained.of(name) is not None for name in names},
    )
    yield of_each(
        "in_mesh",
        "Whether this VM's own proxy sends to it.",
        {name: snap.sights[name].listed for name in names if name in snap.sights},
    )


def is_held(verdict: Verdict) -> bool:
    return verdict.health is Health.UNHEALTHY and verdict.reason == REASON


def _one(name: str, words: str, value: float) -> Family:
    return Family(name, words, [({}, value)])
