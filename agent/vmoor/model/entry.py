"""WorkloadEntries as values: what one from the API server says, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional

OWNER = "vmoor"  # app.kubernetes.io/managed-by, and the field manager
MANAGED_BY = "app.kubernetes.io/managed-by"
VM = "vmoor.io/vm"
SERVICE = "vmoor.io/service"
SERVICE_ACCOUNT = "vmoor.io/service-account"
HOLDER = "vmoor.io/holder"  # the annotation that says which boot of which machine wrote it
HEALTHY = "Healthy"  # the condition that istiod reads (pilot/pkg/model/status)
API_VERSION = "networking.istio.io/v1"
SELECTOR = f"{MANAGED_BY}={OWNER}"  # of all that carries the owner mark, whoever's it is

Object = Mapping[str, Any]  # a Kubernetes object as JSON


@dataclass(frozen=True)
class EntryState:
    """One service's entry as registration last saw or wrote it."""

    service: str
    name: str
    state: str  # "registered" | "refused" | "pending"
    health: str = ""  # what the Healthy condition says: "True" | "False" | ""
    words: str = ""
    entered: float = 0.0  # Clock.now() of our own last write of Healthy=True, 0 = none yet


class Owner(NamedTuple):
    """Who may change an object: this VM under this service account, and nobody else of us."""

    vm: str
    service_account: str

    @property
    def labels(self) -> Mapping[str, str]:
        """The owner mark."""
        return {MANAGED_BY: OWNER, VM: self.vm, SERVICE_ACCOUNT: self.service_account}

    @property
    def selector(self) -> str:
        return f"{SELECTOR},{VM}={self.vm}"

    def owns(self, thing: Object) -> bool:
        labels = _map(metadata(thing).get("labels"))
        return all(labels.get(key) == value for key, value in self.labels.items())


def metadata(thing: Object) -> Mapping[str, Any]:
    return _map(thing.get("metadata"))


def labels(thing: Object) -> Mapping[str, str]:
    return _map(metadata(thing).get("labels"))


def notes(thing: Object) -> Mapping[str, str]:
    """Its annotations."""
    return _map(metadata(thing).get("annotations"))


def name(thing: Object) -> str:
    return str(metadata(thing).get("name", ""))


def version(thing: Object) -> str:
    """metadata.resourceVersion: to be compared for equality only."""
    return str(metadata(thing).get("resourceVersion", ""))


def uid(thing: Object) -> str:
    return str(metadata(thing).get("uid", ""))


def judged(thing: Object) -> Mapping[str, str]:
    """The metadata that ties a write to exactly this version of this object.

    The version alone is not enough: an apply, or the PUT of a Lease, makes anew what is gone.
    """
    return {"name": name(thing), "uid": uid(thing), "resourceVersion": version(thing)}


def holder(thing: Object) -> str:
    return str(notes(thing).get(HOLDER, ""))


def service(thing: Object) -> str:
    return str(_map(metadata(thing).get("labels")).get(SERVICE, ""))


def address(thing: Object) -> str:
    return str(_map(thing.get("spec")).get("address", ""))


def described_owner(thing: Object) -> str:
    """Whom an object that is not ours belongs to, for people."""
    labels = _map(metadata(thing).get("labels"))
    marks = {key: labels.get(key) for key in (MANAGED_BY, VM, SERVICE_ACCOUNT)}
    if marks[MANAGED_BY] != OWNER:
        return f"it is not vmoor's (managed by {marks[MANAGED_BY] or 'nobody told'})"
    missing = [key for key, value in marks.items() if not value]
    if missing:
        return f"it has lost its label {missing[0]}"
    return f"it belongs to VM {marks[VM]} of service account {marks[SERVICE_ACCOUNT]}"


def condition(thing: Object, type_: str) -> Optional[Mapping[str, Any]]:
    """The condition of that type, None when there is none."""
    return next((c for c in _conditions(thing) if c.get("type") == type_), None)


def health(thing: Object) -> Optional[Mapping[str, Any]]:
    """The Healthy condition, None when there is none (istiod leaves such an entry out)."""
    return condition(thing, HEALTHY)


def health_status(thing: Object) -> str:
    """What the condition says: "True", "False"; "" when there is none."""
    return str((health(thing) or {}).get("status", ""))


def with_condition(
    thing: Object, type_: str, *, status: str, reason: str, message: str, wall: float
) -> Mapping[str, Any]:
    """The body of an apply on the status of exactly this version of `thing`.

    status.conditions is an atomic list in Istio's CRD: conditions of others are carried over, or
    they would be gone.
    """
    now = timestamp(wall)
    old = condition(thing, type_) or {}
    since = old.get("lastTransitionTime", now) if old.get("status") == status else now
    ours = {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": since,
    }
    others = [dict(c) for c in _conditions(thing) if c.get("type") != type_]
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkloadEntry",
        "metadata": judged(thing),
        "status": {"conditions": [*others, ours]},
    }


def with_health(
    thing: Object, *, status: bool, reason: str, message: str, wall: float
) -> Mapping[str, Any]:
    """`with_condition` for Healthy."""
    return with_condition(
        thing, HEALTHY, status=str(status), reason=reason, message=message, wall=wall
    )


def timestamp(wall: float) -> str:
    """metav1.Time: RFC 3339 with whole seconds."""
    return datetime.fromtimestamp(wall, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _conditions(thing: Object) -> Sequence[Mapping[str, Any]]:
    listed = _map(thing.get("status")).get("conditions")
    return [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
