"""What the reaper publishes to agents and people, in the Lease vmoor-system/vmoor-fleet."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from vmoor.model import entry, lease
from vmoor.model.entry import Object
from vmoor.model.reaper import LABELS

if TYPE_CHECKING:  # agents read what is published, and need nothing of how it is decided
    from vmoor.model.reaper.decision import Brake

NAME = "vmoor-fleet"
INTERVAL = "vmoor.io/interval"  # seconds between two beats of an agent
BRAKE = "vmoor.io/brake"  # JSON: [{"scope": "shop/web", "lost": 6, "of": 10}]

# Kubernetes lives with 500 kubelets' beats a second; an API server with 2 cores took 505 to 575.
BUDGET = 300.0  # beats a second, of the whole fleet
SHORTEST_S, LONGEST_S = 1.0, 39.0  # what an agent obeys: a lease of 4 to 118 s
PUBLISH_S = 10.0  # how often the leader renews it; who sees no renewal has no reaper
STALE_S = 3 * PUBLISH_S


class Published(NamedTuple):
    interval: float = lease.INTERVAL_S
    brakes: Sequence[Brake] = ()


def interval(vms: int, budget: float = BUDGET) -> float:
    """Seconds, in tenths: 3 for up to 900 VMs."""
    tenths = math.ceil(round(vms / budget * 10, 6))
    return min(LONGEST_S, max(lease.INTERVAL_S, tenths / 10))


def obeyed(thing: Optional[Object]) -> float:
    """The interval that an agent takes from there, in bounds whatever it says."""
    try:
        said = float(str(entry.notes(thing or {}).get(INTERVAL, "")))
    except ValueError:
        return lease.INTERVAL_S
    if not math.isfinite(said):
        return lease.INTERVAL_S
    return min(LONGEST_S, max(SHORTEST_S, said))


def body(old: Optional[Object], published: Published, identity: str, at: str) -> Object:
    brakes = [{"scope": str(b.scope), "lost": b.lost, "of": b.members} for b in published.brakes]
    spec = {"holderIdentity": identity, "leaseDurationSeconds": int(STALE_S), "renewTime": at}
    notes = {INTERVAL: f"{published.interval:g}", BRAKE: json.dumps(brakes)}
    return lease.put_over(old, NAME, LABELS, spec, notes)


def brakes(thing: Optional[Object]) -> Sequence[Mapping[str, Any]]:
    """As `body` wrote them; () when they cannot be read."""
    try:
        said = json.loads(str(entry.notes(thing or {}).get(BRAKE, "[]")))
        return [
            {"scope": str(b["scope"]), "lost": int(b["lost"]), "of": int(b["of"])} for b in said
        ]
    except (ValueError, KeyError, TypeError):
        return ()
