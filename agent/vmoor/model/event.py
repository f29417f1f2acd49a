"""Kubernetes Events: what `kubectl describe workloadentry` tells of the past hour."""

from __future__ import annotations

from vmoor.model import entry
from vmoor.model.entry import Object

MESSAGE_LIMIT = 1024  # of core/v1 Event (pkg/apis/core/validation)


def event(about: Object, *, reason: str, message: str, warning: bool, wall: float) -> Object:
    """About one version of an object; the name is unique as that of client-go: time in hex."""
    meta, now = entry.metadata(about), entry.timestamp(wall)
    name = entry.name(about)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{int(wall * 1e9):x}"},
        "involvedObject": {
            "apiVersion": about.get("apiVersion", ""),
            "kind": about.get("kind", ""),
            "namespace": meta.get("namespace", ""),
            "name": name,
            "uid": entry.uid(about),
            "resourceVersion": entry.version(about),
        },
        "reason": reason,
        "message": message[:MESSAGE_LIMIT],
        "type": "Warning" if warning else "Normal",
        "source": {"component": entry.OWNER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
