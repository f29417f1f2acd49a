"""Which services this VM has, and the address at which the mesh finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from vmoor.config import labels
from vmoor.config.settings import Settings
from vmoor.model.credential import Credentials
from vmoor.model.discovered import Discovered, Found, merged
from vmoor.model.service import ProcessProbe, TtlProbe, UnitProbe
from vmoor.ports import Host
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

AGAIN_S = 300.0  # a change of an address rings; this only bounds a lost one


class Discovery:
    """`sources` are the further ones beside the configuration, in order of precedence.

    `vm` is this machine's name. `watch_units` is told the units that own services,
    `watch_processes` the pid files of checks and `watch_pushes` those checks for which
    applications speak, on each pass.
    """

    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        discovered: Cell[Discovered],
        address: Cell[str],
        sources: Mapping[str, Cell[Found]],
        host: Host,
        vm: str,
        watch_units: Callable[[Sequence[str]], None],
        watch_processes: Callable[[Sequence[str]], None],
        watch_pushes: Callable[[Iterable[TtlProbe]], None],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._discovered = discovered
        self._own = address
        self._sources = sources
        self._host = host
        self._vm = vm
        self._watch_units = watch_units
        self._watch_processes = watch_processes
        self._watch_pushes = watch_pushes

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None:
            return Settled("waiting for the configuration", AGAIN_S, waiting=True)
        found = merged(
            {
                "the configuration": Found(settings.services),
                **{name: source.get() for name, source in self._sources.items()},
            }
        )
        probes = [check.probe for service in found.services for check in service.checks]
        owners = {p.unit for p in probes if isinstance(p, UnitProbe)}
        self._watch_units(sorted(owners | set(found.units)))
        self._watch_processes([p.path for p in probes if isinstance(p, ProcessProbe)])
        self._watch_pushes([p for p in probes if isinstance(p, TtlProbe)])
        if not found.ready:  # what is not found yet would leave the mesh
            return Settled("waiting for the sources", AGAIN_S, waiting=True)
        # Before the address: services are checked while the VM is still mooring, and an address
        # that can't be told now was right until now.
        known = self._discovered.get().address
        locality = settings.vm.locality or self._host.locality()
        found, own = self._labelled(found, settings.vm.labels, locality)
        discovered = Discovered(found.services, known, locality, found.told, found.problems, own)
        self._tell(discovered)
        address = self._address(settings)
        if not address:
            return Settled("waiting for identity", AGAIN_S, waiting=True)
        if known and address != known:
            log.warning("The address of this VM is %s now, it was %s", address, known)
        self._tell(replace(discovered, address=address))
        if found.problems:
            words = found.problems[0] + _more(len(found.problems) - 1)
            return Settled(words, AGAIN_S, wrong=True, remedy=found.remedy)
        count = len(found.services)
        return Settled(f"{address}, {count} service{'' if count == 1 else 's'}", AGAIN_S)

    def _tell(self, discovered: Discovered) -> None:
        self._discovered.set(discovered)
        self._own.set(discovered.address)

    def _labelled(
        self, found: Found, own: Mapping[str, str], locality: str
    ) -> tuple[Found, Mapping[str, str]]:
        """With the variables of all labels filled in: the services', and the VM's `own`."""
        values = [value for each in found.services for value in each.labels.values()]
        used = frozenset().union(*map(labels.variables, (*values, *own.values())))
        if not used:
            return found, own
        known = dict(zip(("region", "zone", "subzone"), locality.split("/")), vm=self._vm)
        if "instance_id" in used:
            known["instance_id"] = self._host.instance_id()
        own, wrong = labels.filled(own, known)
        told = [(f"vm: {words}", remedy) for words, remedy in wrong]
        services = []
        for service in found.services:
            mine, wrong = labels.filled(service.labels, known)
            services.append(replace(service, labels=mine))
            told += [(f"service {service.name}: {words}", remedy) for words, remedy in wrong]
        problems = (*found.problems, *(words for words, _ in told))
        remedy = found.remedy if found.problems or not told else told[0][1]
        filled = replace(found, services=tuple(services), problems=problems, remedy=remedy)
        return filled, own

    def _address(self, settings: Settings) -> str:
        """What is known already while telling it takes the mesh facts and they are not here."""
        vm = settings.vm
        if vm.fixed_address:
            return vm.fixed_address
        if vm.address:
            return self._host.public_address()
        if vm.interface:
            return self._host.interface_address(vm.interface)
        if vm.cidr:
            return self._host.cidr_address(vm.cidr)
        credentials = self._credentials.get()
        if credentials is None:
            return self._discovered.get().address
        return self._host.route_address(credentials.facts.istio.discovery[0])


def _more(count: int) -> str:
    return f" (and {count} more, see `vmoor status --json`)" if count else ""
