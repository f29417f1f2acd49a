"""Which services this VM has, and the address at which the mesh finds them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Optional

from vmoor.config.settings import Settings
from vmoor.model.credential import Credentials
from vmoor.model.discovered import Discovered, Found, merged
from vmoor.model.service import ProcessProbe, UnitProbe
from vmoor.ports import Host
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

AGAIN_S = 300.0  # a change of an address rings; this only bounds a lost one


class Discovery:
    """`sources` are the further ones beside the configuration, in order of precedence.

    `watch_units` is told the units that own services, `watch_processes` the pid files of checks,
    on each pass.
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
        watch_units: Callable[[Sequence[str]], None],
        watch_processes: Callable[[Sequence[str]], None],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._discovered = discovered
        self._own = address
        self._sources = sources
        self._host = host
        self._watch_units = watch_units
        self._watch_processes = watch_processes

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
        if not found.ready:  # what is not found yet would leave the mesh
            return Settled("waiting for the sources", AGAIN_S, waiting=True)
        # Before the address: services are checked while the VM is still mooring, and an address
        # that can't be told now was right until now.
        known = self._discovered.get().address
        locality = settings.vm.locality or self._host.locality()
        self._tell(found, known, locality)
        address = self._address(settings)
        if not address:
            return Settled("waiting for identity", AGAIN_S, waiting=True)
        if known and address != known:
            log.warning("The address of this VM is %s now, it was %s", address, known)
        self._tell(found, address, locality)
        if found.problems:
            words = found.problems[0] + _more(len(found.problems) - 1)
            return Settled(words, AGAIN_S, wrong=True, remedy=found.remedy)
        count = len(found.services)
        return Settled(f"{address}, {count} service{'' if count == 1 else 's'}", AGAIN_S)

    def _tell(self, found: Found, address: str, locality: str) -> None:
        self._discovered.set(
            Discovered(found.services, address, locality, found.told, found.problems)
        )
        self._own.set(address)

    def _address(self, settings: Settings) -> str:
        """What is known already while telling it takes the mesh facts and they are not here."""
        vm = settings.vm
        if vm.address:
            return vm.address
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
