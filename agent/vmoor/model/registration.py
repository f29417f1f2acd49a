"""What our entries must say, and the next step towards it.

`step` decides one entry from what is wanted and what is there, nothing else: whoever carries it
out and asks again until it answers None has converged, and may be interrupted anywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Optional

from vmoor.model import entry, lease, selection
from vmoor.model.drain import Order
from vmoor.model.entry import Object, Owner
from vmoor.model.health import Health, Verdict
from vmoor.model.machine import Machine
from vmoor.model.selection import Selection
from vmoor.model.service import Service, Workload

HEALTH_CHECKS = "proxy.istio.io/health-checks-enabled"  # "true": no Healthy=True, no endpoint
GONE = "ServiceGone"
REBOOTED = "Rebooted"
MOVED = "AddressChanged"
TAKEN = "AddressTaken"


class Place(NamedTuple):
    """What all entries of this VM have in common."""

    owner: Owner
    holder: str
    workload: Workload
    address: str
    network: str = ""
    locality: str = ""
    labels: Mapping[str, str] = {}  # of the VM


class Word(NamedTuple):
    """What the Healthy condition shall say."""

    healthy: bool
    reason: str
    message: str


class Wish(NamedTuple):
    """What is wanted of one entry. `body` None = that it goes; `word` None = leave its health.

    `selection` None = leave what is said of it.
    """

    name: str
    service: str
    body: Optional[Object]
    word: Optional[Word]
    selection: Optional[Selection] = None


class Verb(enum.Enum):
    CREATE = "create"
    UPDATE = "update"
    STATUS = "status"
    DELETE = "delete"
    REFUSE = "refuse"


class Step(NamedTuple):
    verb: Verb
    body: Object  # what is sent; for DELETE and REFUSE the object that was judged
    word: Optional[Word] = None


class Sighting(NamedTuple):
    """What the watch last said of one entry; `thing` None = deleted, or no longer marked ours."""

    version: str
    thing: Optional[Object]


@dataclass(frozen=True)
class Observed:
    """Our own entries as the watch tells them. `lists` counts the LISTs behind it."""

    live: bool = False
    lists: int = 0
    sightings: Mapping[str, Sighting] = field(default_factory=dict)


# As many of our own writes as may be on their way back through the watch.
REMEMBERED = 8


@dataclass(frozen=True)
class Known:
    """One entry as we last wrote, read or saw it, and the versions that are no news to us.

    `stale`: read it before the next judgement.
    """

    thing: Optional[Object] = None
    stale: bool = True
    versions: tuple[str, ...] = ()

    def now(self, thing: Optional[Object], version: str) -> Known:
        return Known(thing, stale=False, versions=self._with(version))

    def seen(self, sighting: Sighting) -> Known:
        """A deletion is looked at again: it may only have lost its mark."""
        if sighting.version in self.versions:
            return self
        gone = sighting.thing is None
        return Known(sighting.thing, stale=gone, versions=self._with(sighting.version))

    @property
    def absent(self) -> bool:
        return self.thing is None and not self.stale

    def doubted(self) -> Known:
        return replace(self, stale=True)

    def _with(self, version: str) -> tuple[str, ...]:
        return (*self.versions, version)[-REMEMBERED:]


def entry_name(service: str, vm: str) -> str:
    """A dot, since both are DNS labels: with a dash a-b + c and a + b-c would be one name."""
    return f"{service}.{vm}"


def desired(service: Service, place: Place, *, degraded: bool = False) -> Object:
    """The entry as it is applied. The mark wins over any label that a person wrote."""
    workload = place.workload
    spec: dict[str, Any] = {
        "address": place.address,
        "ports": dict(service.ports),
        # Without it clients speak plain text to this endpoint.
        "serviceAccount": workload.service_account,
    }
    if place.network:
        spec["network"] = place.network
    if place.locality:
        spec["locality"] = place.locality
    if service.weight is not None:
        spec["weight"] = _lowered(service.weight) if degraded else service.weight
    return {
        "apiVersion": entry.API_VERSION,
        "kind": "WorkloadEntry",
        "metadata": {
            "name": entry_name(service.name, place.owner.vm),
            "labels": {
                **place.labels,
                **service.labels,
                **workload.mesh_labels,
                entry.SERVICE: service.name,
                **place.owner.labels,
            },
            "annotations": {HEALTH_CHECKS: "true", entry.HOLDER: place.holder},
        },
        "spec": spec,
    }


def is_lowered(service: Service, have: Object) -> bool:
    weight = have["spec"].get("weight")
    return service.weight is not None and weight == _lowered(service.weight) != service.weight


def _lowered(weight: int) -> int:
    return max(1, weight // 4)


def word(
    verdict: Optional[Verdict], *, fresh: bool, drained: Optional[Order] = None
) -> Optional[Word]:
    """What the condition shall say; None = the cluster keeps the last word.

    `fresh`: the last word is from before this boot, or from a proxy that is no more.
    """
    if drained is not None:
        return Word(healthy=False, reason="Drained", message=f"drained by {drained.who}")
    if verdict is None or verdict.health is Health.UNKNOWN:
        unchecked = Word(healthy=False, reason="NotCheckedYet", message="not checked yet")
        return unchecked if fresh else None
    return Word(verdict.health is Health.HEALTHY, verdict.reason, verdict.words)


def step(wish: Wish, have: Optional[Object], owner: Owner, wall: float) -> Optional[Step]:
    """The next step for one entry; None when it is as wanted.

    Out of the mesh comes before everything, into it after everything.
    """
    if wish.body is None:
        return _away(have, owner, wall)
    if have is None:
        return Step(Verb.CREATE, wish.body)
    if not owner.owns(have):
        return Step(Verb.REFUSE, have)
    wanted = wish.word
    out = wanted is not None and not wanted.healthy and entry.health_status(have) == "True"
    if not out and (not _says(have, wish.body) or _leftover(have, wish.body)):
        tied = {**wish.body["metadata"], **entry.judged(have)}
        return Step(Verb.UPDATE, {**wish.body, "metadata": tied})
    if wanted and _differs(have, wanted):
        return _status(have, wanted, wall)
    return _told(wish, have, wall)


def restrained(
    wish: Wish, have: Optional[Object], owner: Owner, wall: float, *, taken: bool
) -> Optional[Step]:
    """As `step`, while the address is not known to be ours: nothing into the mesh.

    What is in it stays as it is, but for what must go out anyway; `taken` = all must.
    """
    if have is None or not owner.owns(have):
        return None
    if taken:
        message = "another VM lives at this address"
        word = Word(healthy=False, reason=TAKEN, message=message)
        return _status(have, word, wall) if _differs(have, word) else None
    if wish.body is None:
        return _away(have, owner, wall)
    wanted = wish.word
    if wanted is None or wanted.healthy:
        moved = entry.address(have) != wish.body["spec"]["address"]
        if not moved or entry.health_status(have) != "True":
            return None
        wanted = Word(healthy=False, reason=MOVED, message="the VM has another address now")
    return _status(have, wanted, wall) if _differs(have, wanted) else None


def _told(wish: Wish, have: Object, wall: float) -> Optional[Step]:
    """Who selects it. That all is well is news only to who was told otherwise."""
    told, there = wish.selection, entry.condition(have, selection.CONDITION)
    if told is None or (there is None and told == selection.LISTED):
        return None
    words = f"{wish.service} {told.words}" + (f": {told.remedy}" if told.remedy else "")
    said = [(there or {}).get(key) for key in ("status", "reason", "message")]
    if said == [told.status, told.reason, words]:
        return None
    body = entry.with_condition(
        have, selection.CONDITION, status=told.status, reason=told.reason, message=words, wall=wall
    )
    return Step(Verb.STATUS, body)


def _away(have: Optional[Object], owner: Owner, wall: float) -> Optional[Step]:
    if have is None or not owner.owns(have):
        return None
    if entry.health_status(have) == "True":
        return _status(have, Word(healthy=False, reason=GONE, message="no longer served"), wall)
    return Step(Verb.DELETE, have)


def exclusion(have: Object, place: Place, machine: Machine, wall: float) -> Optional[Step]:
    """The one write that needs no lease: what an earlier boot of this machine left in the mesh.

    Only an entry of this very machine at its present address, only out.
    """
    if (
        place.owner.owns(have)
        and lease.same_machine(entry.holder(have), machine)
        and entry.address(have) == place.address
        and entry.health_status(have) == "True"
    ):
        return _status(
            have, Word(healthy=False, reason=REBOOTED, message="machine started anew"), wall
        )
    return None


def says(have: Object, wanted: Word, wall: float) -> Object:
    """The body of a status apply that makes exactly this version say so."""
    return entry.with_health(
        have, status=wanted.healthy, reason=wanted.reason, message=wanted.message, wall=wall
    )


def _status(have: Object, wanted: Word, wall: float) -> Step:
    return Step(Verb.STATUS, says(have, wanted, wall), wanted)


def _differs(have: Object, wanted: Word) -> bool:
    """The message alone ("200 in 4ms") is no reason to write."""
    there = entry.health(have) or {}
    return (there.get("status"), there.get("reason")) != (str(wanted.healthy), wanted.reason)


def _says(have: Any, want: Any) -> bool:
    """Whether all that we want is there; what others added stays theirs."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(
            key in have and _says(have[key], value) for key, value in want.items()
        )
    return bool(have == want)


def _leftover(have: Object, want: Object) -> bool:
    """Whether we own a field that we want no more, such as a weight; apply takes it away."""
    for manager in entry.metadata(have).get("managedFields") or ():
        if (
            manager.get("manager") == entry.OWNER
            and manager.get("operation") == "Apply"
            and not manager.get("subresource")
        ):
            return _owns_more(manager.get("fieldsV1", {}), want)
    return False


def _owns_more(fields: Any, want: Any) -> bool:
    """fieldsV1 is nested maps with keys "f:NAME" (structured-merge-diff)."""
    for key, below in fields.items():
        if not key.startswith("f:"):
            continue
        if not isinstance(want, dict) or key[2:] not in want:
            return True
        if below and _owns_more(below, want[key[2:]]):
            return True
    return False
