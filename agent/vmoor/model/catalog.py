"""From what a Consul agent declares to services, and to how each of them is.

Shapes: https://developer.hashicorp.com/consul/api-docs/agent/service and .../agent/check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

from vmoor.errors import quoted
from vmoor.model.discovered import Found
from vmoor.model.health import Probe
from vmoor.model.service import DNS_LABEL, PROXY_PORTS, Check, Service, ToldProbe

SERVICES_LIMIT = 1000  # of one VM; each is an entry in the mesh
REGISTERED = "vmoor-registered"  # Meta of what vmoor itself puts into a catalog: never taken back
WEIGHT_LIMIT = 65535  # Consul's; 1 is its default
PORT_NAME, PROTOCOL, LABEL = "vmoor-port-name", "vmoor-protocol", "vmoor.label."

_PORTS = range(1, 65536)
# Consul's own output of these is never empty once they ran; until then they are critical, such
# as after each restart of the agent (agent/checks/check.go). That is no news.
_NEVER_SILENT = ("http", "tcp", "grpc")
_CHECKS = (Check("consul", ToldProbe(), failure_threshold=1),)
_PASSED = Probe(passed=True, words="consul: passing")

T = TypeVar("T")
Refusal = Callable[[str, str], str]  # why this label cannot be, "" when it can


@dataclass(frozen=True)
class Declared:
    """A service as the agent has it."""

    id: str
    name: str
    port: int
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    kind: str
    weight: int

    @property
    def shown(self) -> str:
        return f"consul's service {quoted(self.name)}"


@dataclass(frozen=True)
class Said:
    """A check as Consul has it; without a service it is about the whole node."""

    id: str
    name: str
    service: str  # the ID
    status: str
    output: str
    notes: str
    kind: str

    @property
    def ran(self) -> bool:
        return self.status != "critical" or self.output != "" or self.kind not in _NEVER_SILENT


def declared(answer: Any) -> tuple[Declared, ...]:
    """Of GET /v1/agent/services. Raises TypeError when it is not that."""
    return tuple(_declared(_as(dict, each)) for each in _as(dict, answer).values())


def revived(kept: Any) -> tuple[Declared, ...]:
    """Of `asdict` and JSON. Raises TypeError when it is not that."""
    return tuple(Declared(**{**each, "tags": tuple(each["tags"])}) for each in _as(list, kept))


def _declared(each: Mapping[str, Any]) -> Declared:
    return Declared(
        id=_as(str, each.get("ID")),
        name=_as(str, each.get("Service")),
        port=_as(int, each.get("Port")),
        tags=tuple(_as(str, tag) for tag in _as(list, each.get("Tags"))),
        meta={key: _as(str, value) for key, value in _as(dict, each.get("Meta")).items()},
        kind=_as(str, each.get("Kind")),
        weight=_as(int, _as(dict, each.get("Weights")).get("Passing")),
    )


def said(answer: Iterable[Any]) -> tuple[Said, ...]:
    """Of checks, by ID. Raises TypeError when they are none."""
    return tuple(sorted((_said(_as(dict, each)) for each in answer), key=lambda check: check.id))


def _said(each: Mapping[str, Any]) -> Said:
    def text(key: str) -> str:
        return _as(str, each.get(key))

    return Said(
        text("CheckID"), text("Name"), text("ServiceID"), text("Status"), text("Output"),
        text("Notes"), text("Type"),
    )  # fmt: skip


def _as(kind: type[T], value: Any) -> T:
    """Consul writes null for an empty one."""
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def found(
    services: Sequence[Declared], checks: Sequence[Said], tag: str, refusal: Refusal
) -> Found:
    """`tag` must be on a service, "" = all count."""
    ours = [each for each in services if _counts(each, tag)]
    ours.sort(key=lambda each: (each.name, each.id))
    problems: list[str] = []
    taken: dict[str, Service] = {}
    told: dict[str, Probe] = {}
    for each in ours[:SERVICES_LIMIT]:
        why = _unfit(each)
        if not why and each.name in taken:
            why = "is declared twice on this VM: only the ID that sorts first counts, rename one"
        if why:
            problems.append(f"{each.shown} (ID {quoted(each.id)}) {why}")
            continue
        taken[each.name] = _service(each, refusal, problems)
        probe = _probe([c for c in checks if c.service in ("", each.id)])
        if probe is not None:
            told[each.name] = probe
    if len(ours) > SERVICES_LIMIT:
        words = f"consul declares {len(ours)} services: only the first {SERVICES_LIMIT} by name"
        problems.append(f"{words} count, set sources.consul.require_tag")
    remedy = "mend what is declared to Consul" if problems else ""
    return Found(tuple(taken.values()), told, tuple(problems), remedy)


def _counts(each: Declared, tag: str) -> bool:
    """Not Consul's own proxies and gateways, nor what vmoor registered itself."""
    own = each.kind or each.name.endswith("-sidecar-proxy") or each.meta.get(REGISTERED) == "true"
    return not own and (not tag or tag in each.tags)


def _unfit(each: Declared) -> str:
    """Why it cannot be a service here, with what to do; "" when it can."""
    if not DNS_LABEL.fullmatch(each.name):
        return (
            "has no name for the mesh: rename it (lower-case letters, digits and dashes, at "
            "most 63)"
        )
    if each.port not in _PORTS:
        return "has no port: declare one"
    if each.port in PROXY_PORTS:
        return "has a port of the proxy itself: choose another"
    if not DNS_LABEL.fullmatch(each.meta.get(PORT_NAME, "http")):
        return f"has a wrong {PORT_NAME}: write a port's name such as http"
    return ""


def _service(each: Declared, refusal: Refusal, problems: list[str]) -> Service:
    return Service(
        name=each.name,
        ports={each.meta.get(PORT_NAME, "http"): each.port},
        checks=_CHECKS,
        protocol=each.meta.get(PROTOCOL, ""),
        labels=dict(_labels(each, refusal, problems)),
        weight=each.weight if 1 < each.weight <= WEIGHT_LIMIT else None,
        source="consul",
    )


def _labels(each: Declared, refusal: Refusal, problems: list[str]) -> Iterator[tuple[str, str]]:
    for tag in each.tags:
        if tag.startswith(LABEL):
            key, _, value = tag[len(LABEL) :].partition("=")
            why = refusal(key, value)
            if why:
                problems.append(f"{each.shown} has tag {quoted(tag)}, which {why}")
            else:
                yield key, value


def _probe(checks: Sequence[Said]) -> Optional[Probe]:
    """The worst of these checks; None while one of them has not run yet."""
    for check in checks:
        if check.ran and check.status not in ("passing", "warning"):
            reason = "Maintenance" if "_maintenance" in check.id else "CheckFailed"
            words = f"consul: {_words(check)}"
            return Probe(passed=False, words=words, reason=reason)
    if not all(check.ran for check in checks):
        return None
    for check in checks:
        if check.status == "warning":
            return Probe(passed=True, words=f"consul: warning: {_words(check)}")
    return _PASSED


def _words(check: Said) -> str:
    more = check.output or check.notes  # a maintenance's reason is in the notes
    words = f"{quoted(check.name or check.id)} is {quoted(check.status)}"
    return f"{words}: {quoted(more)}" if more else words
