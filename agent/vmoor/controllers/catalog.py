"""Takes over what the Consul agent of this VM declares, as soon as it changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Optional

from vmoor.config import labels
from vmoor.config.settings import ConsulSource, Settings
from vmoor.errors import Unavailable, VmoorError
from vmoor.model import catalog
from vmoor.model.catalog import Declared
from vmoor.model.discovered import Found
from vmoor.model.record import parsed
from vmoor.ports import Consul, Files, Turn
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

KEPT = "/var/lib/vmoor/consul.json"
CALM_S = 300.0
FLOOR_S = 0.2  # an agent that ends each query at once must not be asked in a busy loop
ANEW = "reading the configuration anew"
BLIND_S = 2.0  # between two looks while no server tells about changes


class Catalog:
    """A pass lasts as long as a blocking query, up to 75 s: its loop needs that patience.

    `connect` makes the port for one source's time; `reloaded` ends the pass of another source.
    While Consul is away the last that it said stays: the loop fails, nothing is removed. So it
    does over a restart of ours, but for the health, which is unknown then.
    """

    def __init__(
        self,
        *,
        settings: Cell[Optional[Settings]],
        found: Cell[Found],
        connect: Callable[[], Consul],
        files: Files,
    ) -> None:
        self._settings = settings
        self._found = found
        self._connect = connect
        self._files = files
        self._asked: tuple[Optional[ConsulSource], Optional[Consul]] = (None, None)
        self._ended = False  # what was asked for is no longer wanted
        self._node = ""
        self._stored = ""
        self._last: object = None
        self._floor = FLOOR_S
        self._turn = Turn()

    def reloaded(self) -> None:
        """From any thread, after each change of the settings."""
        source, consul = self._asked
        if consul is not None and source != self._configured():
            self._ended = True
            consul.end()

    def reconcile(self) -> Settled:
        ended, self._ended = self._ended, False
        source = self._configured()
        consul = self._turned(source, anew=ended)
        if source is None or consul is None:
            self._found.set(Found())
            return Settled("not configured", CALM_S, waiting=True)
        if source != self._configured():  # before `reloaded` could know what is asked now
            return Settled(ANEW, 0.0)
        try:
            turn, blind = self._wait(source, consul)
            services, checks = consul.declared(source)
        except VmoorError:
            if not self._ended:
                self._found.set(replace(self._found.get(), ready=True))
                raise
        if self._ended or source != self._configured():  # it changed while we waited
            return Settled(ANEW, 0.0)
        self._turn = turn
        local = {check.id for check in checks}
        others = [check for check in turn.checks if check.id not in local]
        found = catalog.found(services, [*checks, *others], source.require_tag, labels.refusal)
        self._found.set(found)
        self._keep(services)
        count = len(found.services)
        words = f"{count} service{'' if count == 1 else 's'} of {source.address}"
        if blind:
            return Settled(f"{words}, looking every {BLIND_S:g} s: {blind}", BLIND_S)
        # The index is that of the whole catalog: in a busy one each query ends at once.
        calm = bool(turn.index) and (services, checks, turn.checks) == self._last
        self._last = (services, checks, turn.checks)
        self._floor = min(BLIND_S, 2 * self._floor) if calm else FLOOR_S
        return Settled(words, self._floor if turn.index else BLIND_S)

    def _turned(self, source: Optional[ConsulSource], *, anew: bool) -> Optional[Consul]:
        """To this source; what asks it."""
        last, consul = self._asked
        if source == last and not anew:
            return consul
        if consul is not None:
            consul.close()
        consul = None if source is None else self._connect()
        self._asked, self._turn = (source, consul), Turn()
        if source is not None and last is None:  # a changed source brings its own or nothing yet
            self._found.set(self._kept(source))
        return consul

    def _kept(self, source: ConsulSource) -> Found:
        """What was declared when we last ran, whatever the source was then."""
        record = parsed(self._files.read(KEPT))
        try:
            services = catalog.revived(record["services"])
        except (KeyError, TypeError):
            return Found(ready=False)
        found = catalog.found(services, (), source.require_tag, labels.refusal)
        return replace(found, told={})

    def _keep(self, services: Sequence[Declared]) -> None:
        text = json.dumps({"services": [asdict(each) for each in services]}, sort_keys=True)
        if text != self._stored:
            self._files.write(KEPT, text.encode(), 0o600)
            self._stored = text

    def _configured(self) -> Optional[ConsulSource]:
        settings = self._settings.get()
        return settings.sources.consul if settings else None

    def _wait(self, source: ConsulSource, consul: Consul) -> tuple[Turn, str]:
        """Until there may be news; and why that cannot be told, "" when it can."""
        # Until all was read nothing is waited for: a pass that fails must not lose news.
        last, self._turn = self._turn, Turn()
        if not last.index:
            self._node = consul.node(source)
        try:
            return consul.turn(source, self._node, last.index), ""
        except Unavailable as e:
            return Turn(), e.message
