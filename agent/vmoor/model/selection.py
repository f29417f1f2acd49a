"""Who makes an endpoint of an entry, and who nearly does.

istiod makes an endpoint of an entry where the workloadSelector of a ServiceEntry, or the selector
of a Service, is part of the entry's labels, in the entry's own namespace only. A port of it leads
to the entry's port of that name, else to a number of its own
(pilot/pkg/serviceregistry: serviceentry/conversion.go, convertWorkloadInstanceToServiceInstance;
kube/controller/util.go, findServiceTargetPort).
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from vmoor.errors import quoted
from vmoor.model import entry, serviceentry
from vmoor.model.entry import Object

CONDITION = "vmoor.io/Selected"  # its type on the entry
CLOSE = 0.6  # difflib's own default: wed and web, shop and shop-v2
# Of objects that we name in a command.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_ENDPOINTS = ("STATIC", "DNS", "DNS_ROUND_ROBIN")  # NONE, the default, has no endpoints


class Selection(NamedTuple):
    """Whether the mesh wants a service's entry: a condition, and the sentence that ends it.

    `words` follow the service's name.
    """

    status: str  # "True" | "False" | "Unknown"
    reason: str  # CamelCase
    words: str
    remedy: str = ""


LISTED = Selection("True", "Listed", "is listed by its own VM's proxy")


class Port(NamedTuple):
    name: str  # of the entry's port that it leads to
    number: int  # where it leads when the entry has none of that name; 0 = nowhere


class Candidate(NamedTuple):
    """A ServiceEntry or a Service, as far as it matters here."""

    kind: str
    name: str
    labels: Mapping[str, str]
    ports: tuple[Port, ...]
    hosts: tuple[str, ...] = ()
    resolution: str = "STATIC"

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"

    def selects(self, labels: Mapping[str, str]) -> bool:
        return bool(self.labels) and not self.wrong(labels)

    def wrong(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        """What it wants that is not so."""
        return {k: v for k, v in self.labels.items() if labels.get(k) != v}

    def leads_to(self, ports: Mapping[str, int]) -> bool:
        there = {ports.get(port.name, port.number) for port in self.ports}
        return bool(there.intersection(ports.values()))

    def is_named(self, service: str) -> bool:
        return service in (self.name, *(host.partition(".")[0] for host in self.hosts))


def candidates(kind: str, things: Iterable[Object]) -> Sequence[Candidate]:
    """Those of the API server's answer that select, or could."""
    made = _service if kind == "Service" else _service_entry
    found = [made(entry.name(thing), _map(thing.get("spec"))) for thing in things]
    return [c for c in found if c is not None and _NAME.fullmatch(c.name)]


def judge(
    service: str, namespace: str, have: Object, found: Optional[Sequence[Candidate]]
) -> Selection:
    """Of an entry that its VM's own proxy does not list; `found` None = we may not look."""
    labels, ports = _texts(entry.metadata(have).get("labels")), _numbers(have)
    remedy = _make(service, namespace, ports)
    wanted = f"{entry.SERVICE}={service}"
    if found is None:
        words = (
            f"is in no list of this VM's own proxy: no ServiceEntry selects {wanted}, "
            "or a Sidecar hides it"
        )
        return Selection("Unknown", "NotListed", words, remedy)
    selecting = [c for c in found if c.selects(labels)]
    if selecting:
        return _hindered(selecting, ports, namespace)
    near = _nearest(service, labels, found)
    if near is None:
        words = (
            "is selected by nobody: no ServiceEntry or Service of namespace "
            f"{namespace} selects {wanted}"
        )
        return Selection("False", "NotSelected", words, remedy)
    selects = ", ".join(f"{k}={v}" for k, v in sorted(near.wrong(labels).items()))
    words = f"is selected by nobody: {near} selects {quoted(selects) or 'nothing'}"
    return Selection("False", "NotSelected", words, _reselect(near, service, labels, namespace))


def _hindered(
    selecting: Sequence[Candidate], ports: Mapping[str, int], namespace: str
) -> Selection:
    """Its labels are right, and yet it is no endpoint."""
    leading = [c for c in selecting if c.leads_to(ports)]
    some = [c for c in leading if c.resolution in _ENDPOINTS]
    if some:
        words = (
            f"is selected by {some[0]}, but not listed by this VM's own proxy: "
            "exportTo or a Sidecar hides it"
        )
        return Selection("True", "Hidden", words)
    if leading:
        words = f"is selected by {leading[0]}, whose resolution is {leading[0].resolution}"
        remedy = _mend(leading[0], namespace, {"spec": {"resolution": "STATIC"}})
        return Selection("False", "NoEndpoints", words, remedy)
    first, name = selecting[0], next(iter(ports), "")
    names = quoted(", ".join(port.name or str(port.number) for port in first.ports))
    mine = ", ".join(f"{n}: {number}" for n, number in ports.items())
    words = f"is selected by {first}, whose ports ({names}) lead to none of its own ({mine})"
    if first.kind == "Service":
        remedy = _mend(first, namespace, f"spec.ports[0].targetPort: {ports.get(name, 0)}")
    else:
        change = [{"op": "add", "path": "/spec/ports/0/name", "value": name}]
        remedy = _mend(first, namespace, change)
    return Selection("False", "PortMismatch", words, remedy)


def _nearest(
    service: str, labels: Mapping[str, str], found: Sequence[Candidate]
) -> Optional[Candidate]:
    """One that has the service's name, or whose label is nearly it and not its own name."""

    def closeness(candidate: Candidate) -> float:
        value = candidate.labels.get(entry.SERVICE, "")
        if candidate.is_named(service):
            return 1.0
        if not value or candidate.is_named(value):
            return 0.0
        return difflib.SequenceMatcher(None, value, service).ratio()

    near = [(-closeness(c), len(c.wrong(labels)), str(c), c) for c in found]
    near = [each for each in near if -each[0] >= CLOSE]
    return min(near, key=lambda each: each[:3])[3] if near else None


def _reselect(near: Candidate, service: str, labels: Mapping[str, str], namespace: str) -> str:
    """Labels that the entry has otherwise become the entry's, others are taken out."""
    change: dict[str, Optional[str]] = {key: labels.get(key) for key in near.wrong(labels)}
    if not any(value for key, value in {**near.labels, **change}.items() if value is not None):
        change[entry.SERVICE] = service
    if near.kind == "Service":
        lines = ", ".join(f"{k}: {v or 'nothing'}" for k, v in sorted(change.items()))
        return _mend(near, namespace, f"spec.selector: {quoted(lines)}")
    return _mend(near, namespace, {"spec": {"workloadSelector": {"labels": change}}})


def _mend(candidate: Candidate, namespace: str, change: Any) -> str:
    """The command; a Service may select Pods, too, so who changes it should look at it."""
    if candidate.kind == "Service":
        return f"kubectl -n {namespace} edit service {candidate.name} ({change})"
    kind = "json" if isinstance(change, list) else "merge"
    text = shlex.quote(json.dumps(change, separators=(",", ":"), sort_keys=True))
    return f"kubectl -n {namespace} patch serviceentry {candidate.name} --type={kind} -p {text}"


def _make(service: str, namespace: str, ports: Mapping[str, int]) -> str:
    options = " ".join(f"--port {_option(name, number)}" for name, number in ports.items())
    return (
        f"vmoor admin service-entry --namespace {namespace} --service {service} "
        f"--host HOST {options} | kubectl apply -f -"
    )


def _option(name: str, number: int) -> str:
    """As clients would call it: 80 for HTTP."""
    protocol = name.partition("-")[0]
    number = 80 if protocol == "http" else number
    return f"{number}:{name}" + ("" if protocol in serviceentry.PROTOCOLS else "/tcp")


def _service_entry(name: str, spec: Mapping[str, Any]) -> Optional[Candidate]:
    if spec.get("endpoints"):  # it has its own, and may not have a selector
        return None
    ports = [
        Port(str(p.get("name", "")), _number(p.get("targetPort")) or _number(p.get("number")))
        for p in _maps(spec.get("ports"))
    ]
    return Candidate(
        "ServiceEntry",
        name,
        _texts(_map(spec.get("workloadSelector")).get("labels")),
        tuple(ports),
        tuple(map(str, _list(spec.get("hosts")))),
        str(spec.get("resolution", "NONE")),
    )


def _service(name: str, spec: Mapping[str, Any]) -> Optional[Candidate]:
    if spec.get("type") == "ExternalName":
        return None
    ports = []
    for port in _maps(spec.get("ports")):
        target = port.get("targetPort")
        if isinstance(target, str):
            ports.append(Port(target, 0))
        else:
            number = _number(target) or _number(port.get("port"))
            ports.append(Port(str(port.get("name", "")), number))
    return Candidate("Service", name, _texts(spec.get("selector")), tuple(ports))


def _numbers(have: Object) -> Mapping[str, int]:
    ports = _map(_map(have.get("spec")).get("ports"))
    return {str(name): number for name, value in ports.items() if (number := _number(value))}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _texts(value: Any) -> Mapping[str, str]:
    return {str(k): str(v) for k, v in _map(value).items()}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _maps(value: Any) -> Sequence[Mapping[str, Any]]:
    return [each for each in _list(value) if isinstance(each, dict)]
