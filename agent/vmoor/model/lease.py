"""The VM's Lease: heartbeat, and lock on the VM's name.

The protocol is a PUT with resourceVersion, as kubelet's: whoever wrote last is known, and nobody
writes over a version that he has not judged. `judge` is the whole of it; instants are Clock.now()
seconds of the judging machine, since another machine's clock proves nothing.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional

from vmoor.model import entry
from vmoor.model.entry import Object, Owner
from vmoor.model.machine import Machine

API_VERSION = "coordination.k8s.io/v1"
INTERVAL_S = 3.0  # without a reaper in the mesh, and with one up to 900 VMs (model.reaper.fleet)
DURATION_S = 10  # of that interval
LAST_BEAT_S = 60  # a stop that is not a leave: time for an upgrade or a restart
LONGEST_S = 120  # what anybody believes of a duration in a Lease, the reaper too
VERSION = "vmoor.io/version"  # annotation: of the agent that beats
TOMBSTONE = "vmoor.io/tombstone"  # JSON of a Grave, by the reaper: its entries were deleted
JITTER = 0.1
RESERVE_S = 1.0  # a beat ends this long before the lease does, so that one more can be tried
FIRST_DEADLINE_S = 5.0  # of a beat when the lease has lapsed or is not known
LOOK_S = 1.0  # how often a foreign Lease is looked at while it is not known whether it moves
SLOW_LOOK_S = 5.0  # the same once it has moved


class Pace(NamedTuple):
    """What the fleet is told: seconds between two beats, and whether a reaper sees them."""

    interval: float = INTERVAL_S
    reaper: str = ""  # "watching", "none", "unknown"; "" = not looked long enough

    @property
    def duration(self) -> int:
        """leaseDurationSeconds: two beats may be lost, and one may take a second."""
        return math.ceil(round(3 * self.interval, 6)) + 1


@dataclass(frozen=True)
class Lock:
    """Whether this agent may write entries. Changes seldom; its readers are rung."""

    held: bool = False
    refused: bool = False  # someone lives under our name
    words: str = "no lease yet"
    rebooted: bool = False  # not held yet, and the holder is an earlier boot of this machine
    since: float = 0.0  # Clock.now() seconds of the beat that gained it
    label: str = ""  # the address that the last confirmed beat carried, as claim.form


class Beat(NamedTuple):
    """The last beat that the API server confirmed; Clock.now() seconds of when it was sent."""

    at: float = 0.0
    interval: float = INTERVAL_S
    duration: float = DURATION_S


def may_write(lock: Lock, beat: Beat, now: float) -> bool:
    """Past the lease by our own clock somebody else may have taken it over."""
    return lock.held and now < beat.at + beat.duration


def beat_deadline(beat: Optional[Beat], now: float) -> float:
    """How long a beat may take: what the lease has left, less the reserve, at least 1 s."""
    left = beat.at + beat.duration - now if beat else 0.0
    return max(1.0, left - RESERVE_S) if left > 0 else FIRST_DEADLINE_S


def next_beat(interval: float, random: float) -> float:
    """Seconds; `random` is from 0 to 1."""
    return interval * (1 + JITTER * (2 * random - 1))


def lease_name(vm: str) -> str:
    return f"vmoor-{vm}"


@dataclass(frozen=True)
class Seen:
    """A foreign Lease under watch: how it looked, and since when it has looked so."""

    holder: str
    renewed: str
    since: float
    moved: bool = False  # it has changed at least once before our eyes


class Verdict(enum.Enum):
    CREATE = "create"  # there is none
    BEAT = "beat"  # it is ours, or nobody's: write over exactly this version
    WATCH = "watch"  # foreign, and not known yet whether its holder lives
    REFUSE = "refuse"  # foreign, and its holder lives


class Judgement(NamedTuple):
    verdict: Verdict
    seen: Optional[Seen] = None
    again: float = 0.0  # when to look again, for WATCH and REFUSE
    words: str = ""
    confirms: bool = False  # the Lease carries the renewTime that we sent: that PUT went through


def judge(  # noqa: PLR0913 - every input of the decision by name
    lease: Optional[Object],
    *,
    machine: Machine,
    owner: Owner,
    sent: str,
    seen: Optional[Seen],
    asked: float,
    now: float,
    alive: bool = False,
) -> Judgement:
    """`asked` and `now`: before and after the GET. `alive`: its holder just took it from us."""
    if lease is None:
        return Judgement(Verdict.CREATE)
    holder, renewed = holder_of(lease), renewed_of(lease)
    if holder == machine.holder:
        return Judgement(Verdict.BEAT, confirms=bool(sent) and renewed == sent)
    if not owner.owns(lease):
        words = f"Lease {entry.name(lease)} is not this VM's: {entry.described_owner(lease)}"
        return Judgement(Verdict.REFUSE, again=SLOW_LOOK_S, words=words)
    if not holder:
        return Judgement(Verdict.BEAT)
    duration = believed(lease)
    if seen is None or (seen.holder, seen.renewed) != (holder, renewed):
        seen = Seen(holder, renewed, now, moved=alive or seen is not None)
    elif asked - seen.since >= duration:
        return Judgement(Verdict.BEAT)
    return _foreign(replace(seen, moved=seen.moved or alive), duration, now)


def _foreign(seen: Seen, duration: float, now: float) -> Judgement:
    left = max(0.0, seen.since + duration - now)
    if seen.moved:
        words = f"another machine lives under this VM's name: {seen.holder} beats"
        return Judgement(Verdict.REFUSE, seen, max(LOOK_S, min(SLOW_LOOK_S, left)), words)
    words = f"the lease is held by {seen.holder}; looking {left:.0f} s more whether it lives"
    return Judgement(Verdict.WATCH, seen, min(LOOK_S, left), words)


def holder_of(lease: Object) -> str:
    """Nobody, "", when a leave could not delete it."""
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def renewed_of(lease: Object) -> str:
    """Its renewTime, "" when it has none."""
    return str((lease.get("spec") or {}).get("renewTime") or "")


def same_machine(holder: str, machine: Machine) -> bool:
    """Whether that holder is this machine, before or after a reboot."""
    return bool(machine.machine_hash) and holder.split("/", 1)[0] == machine.machine_hash


def held_by(lease: Object, machine: Machine) -> bool:
    return holder_of(lease) == machine.holder


def believed(lease: Object) -> float:
    """Seconds that somebody else's Lease says it lasts."""
    duration = (lease.get("spec") or {}).get("leaseDurationSeconds")
    if not isinstance(duration, int) or duration <= 0:
        return DURATION_S
    return min(duration, LONGEST_S)


def body(
    old: Optional[Object],
    *,
    machine: Machine,
    owner: Owner,
    duration: float,
    renewed: str,
    annotations: Optional[Mapping[str, str]] = None,
) -> Object:
    """The Lease to create or to put over `old`.

    No annotation is carried over: what the reaper or a person noted there ends with this beat.
    Entries never refer to it as their owner: a recreated Lease has another UID, and garbage
    collection would take live entries.
    """
    labels = {**entry.labels(old or {}), **owner.labels}
    term = tenure(old, machine.holder, int(duration), renewed)
    return put_over(old, lease_name(machine.name), labels, term, annotations)


def tenure(old: Optional[Object], holder: str, duration: int, renewed: str) -> Mapping[str, Any]:
    """The spec of a Lease that is held, as client-go's LeaderElectionRecord has it."""
    spec = (old or {}).get("spec") or {}
    ours = spec.get("holderIdentity") == holder
    changes = int(spec.get("leaseTransitions") or 0)
    return {
        "holderIdentity": holder,
        "leaseDurationSeconds": duration,
        "acquireTime": spec.get("acquireTime", renewed) if ours else renewed,
        "renewTime": renewed,
        "leaseTransitions": changes if ours or old is None else changes + 1,
    }


def put_over(
    old: Optional[Object],
    name: str,
    labels: Mapping[str, str],
    spec: Mapping[str, Any],
    annotations: Optional[Mapping[str, str]] = None,
) -> Object:
    """The Lease to create, or to put over exactly this version of `old`."""
    meta: dict[str, Any] = {"name": name, "labels": dict(labels)}
    if old is not None:
        meta.update(entry.judged(old))
    if annotations:
        meta["annotations"] = dict(annotations)
    return {"apiVersion": API_VERSION, "kind": "Lease", "metadata": meta, "spec": dict(spec)}


def released(lease: Object) -> Mapping[str, Any]:
    """The same Lease with nobody holding it, so that a namesake need not wait."""
    return {**lease, "spec": {**lease["spec"], "holderIdentity": ""}}


def micro_time(wall: float) -> str:
    """metav1.MicroTime, as the API server writes it back: six digits."""
    return datetime.fromtimestamp(wall, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
