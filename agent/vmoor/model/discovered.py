"""What the sources found on this VM, and how several of them become one list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vmoor.model.health import Probe
from vmoor.model.service import Service


@dataclass(frozen=True)
class Found:
    """What one source says now. `told`: how each of its services is, where it knows."""

    services: tuple[Service, ...] = ()
    told: Mapping[str, Probe] = field(default_factory=dict)
    problems: tuple[str, ...] = ()  # a sentence each
    remedy: str = ""  # of the first problem
    units: tuple[str, ...] = ()  # those to watch beside the owners of services
    ready: bool = True  # False = the source has not looked yet: its services may exist


@dataclass(frozen=True)
class Discovered:
    services: tuple[Service, ...] = ()
    address: str = ""  # "" = not known yet: the facts are not here
    locality: str = ""  # region/zone/subzone
    told: Mapping[str, Probe] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)  # of the VM


CONFLICT = "rename one of the two, or take it out of its source"


def merged(found: Mapping[str, Found]) -> Found:
    """One list, by name. `found` is in order of precedence: who comes first has the name.

    A later source that has the same name, or another name for the same port, is told, and what
    it says of that service does not count.
    """
    services: dict[str, Service] = {}
    owners: dict[int, str] = {}
    told: dict[str, Probe] = {}
    problems: list[str] = []
    remedies: list[str] = []
    for source, said in found.items():
        problems += said.problems
        remedies += [said.remedy] * len(said.problems)
        for service in said.services:
            words = _conflict(service, source, services, owners)
            if words:
                problems.append(words)
                remedies.append(CONFLICT)
                continue
            services[service.name] = service
            owners.update(dict.fromkeys(service.ports.values(), service.name))
            if service.name in said.told:
                told[service.name] = said.told[service.name]
    ordered = tuple(services[name] for name in sorted(services))
    units = tuple(unit for said in found.values() for unit in said.units)
    ready = all(said.ready for said in found.values())
    return Found(ordered, told, tuple(problems), "".join(remedies[:1]), units, ready)


def _conflict(
    service: Service, source: str, services: Mapping[str, Service], owners: Mapping[int, str]
) -> str:
    """Why this one does not count, "" when it does."""
    if service.name in services:
        first = services[service.name].source
        return f"{source} has a service {service.name}, too: that of {first} counts"
    for port in service.ports.values():
        if port in owners:
            other = services[owners[port]]
            return (
                f"{service.name} of {source} has port {port}, which is {other.name}'s "
                f"({other.source}): it is left out"
            )
    return ""
