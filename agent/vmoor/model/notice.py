"""What a cloud's metadata says of this VM's end, and whether the VM has to go out for it.

Whatever the metadata holds that is not understood raises ValueError: then nothing happens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional

from vmoor.errors import quoted

NONE, AUTO = "none", "auto"
CLOUDS = ("aws", "gce", "azure")  # as cloud-init calls them (v1.cloud_name)

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
_SPOT = ("terminate", "stop", "hibernate")
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
_TARGETS = {"Terminated": "AWS scale-in", "Standby": "AWS standby"}
_WARM = "Warmed:"
# https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events, the worst first. A
# Freeze is not among them: it takes seconds, which is less than a lease.
_EVENTS = ("Terminate", "Preempt", "Redeploy", "Reboot")
_PENDING = ("Scheduled", "Started")  # neither Canceled nor Completed


class Notice(NamedTuple):
    """`who` wants it, in words that stay the same while it stands; `words` say more."""

    who: str
    words: str
    hold: bool = False  # nor is anything registered meanwhile


def cloud_of(asked: str, told: Callable[[], str]) -> str:
    """Whose metadata are watched, "" = nobody's. `told` is the cloud that cloud-init names."""
    cloud = told() if asked == AUTO else asked
    return cloud if cloud in CLOUDS else ""


def of_aws(spot: Optional[str], target: Optional[str]) -> Optional[Notice]:
    """spot/instance-action and autoscaling/target-lifecycle-state; None = there is none."""
    if spot is not None:
        said = _object(spot)
        if said.get("action") not in _SPOT:
            raise ValueError(f"the spot action {quoted(said.get('action'))}")
        return Notice("AWS spot notice", f"{said['action']} at {quoted(said.get('time'))}")
    state = (target or "").strip()
    if state.startswith(_WARM):
        return Notice("AWS warm pool", quoted(state), hold=True)
    who = _TARGETS.get(state)
    return Notice(who, f"target state {state}") if who else None


def of_gce(preempted: str) -> Optional[Notice]:
    """instance/preempted."""
    said = preempted.strip()
    if said not in ("TRUE", "FALSE"):
        raise ValueError(f"preempted {quoted(said)}")
    return Notice("GCE preemption", "preempted") if said == "TRUE" else None


def of_azure(scheduled: str, vm: str) -> Optional[Notice]:
    """scheduledevents, for the VM of this name: those of its scale set are listed, too."""
    events = _object(scheduled).get("Events")
    if not isinstance(events, list):
        raise ValueError("no list of events")  # noqa: TRY004
    found: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if isinstance(event, dict) and _meant(event, vm.lower()):
            found[str(event.get("EventType"))] = event
    for kind in _EVENTS:
        if kind in found:
            at = quoted(found[kind].get("NotBefore") or "once")
            return Notice(f"Azure {kind} event", f"not before {at}")
    return None


def _meant(event: Mapping[str, Any], vm: str) -> bool:
    names = event.get("Resources")
    return (
        event.get("EventStatus") in _PENDING
        and isinstance(names, list)
        and vm in (str(name).lower() for name in names)
    )


def _object(text: str) -> Mapping[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004
    return found
