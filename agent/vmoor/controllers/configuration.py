"""Reads the configuration, keeps the accepted one, tells every problem of a refused one.

A wrong configuration never ends anything: the accepted one runs on, and with none the agent
waits. SIGHUP (`reload`) reads again; while there is a problem, a change of the files does too.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Optional, Protocol

from vmoor.config.build import settings_from
from vmoor.config.settings import Settings
from vmoor.errors import LocalFault, Misconfigured
from vmoor.model import record
from vmoor.model.machine import Machine
from vmoor.ports import Files
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how often the files are looked at (one stat each) while none is accepted
CALM_S = 3600.0


class Read(Protocol):
    @property
    def document(self) -> Mapping[str, Any]: ...

    @property
    def problems(self) -> tuple[str, ...]: ...

    @property
    def none(self) -> bool: ...


class Configuration:
    """`read` validates in a child process; `stamp` changes when a file of the tree or vmoor does.

    Files that were accepted under the same stamp are not validated again at a start: that child
    would cost the first beat after a crash 0.3 s.
    `identify` turns vm.name into the Machine and refuses a name that cannot be one; `taken` is
    told each configuration that is used from now on.
    """

    def __init__(  # noqa: PLR0913 - cells and seams, each once
        self,
        settings: Cell[Optional[Settings]],
        read: Callable[[], Read],
        stamp: Callable[[], str],
        files: Files,
        accepted: str,
        identify: Callable[[str], Machine],
        machine: Cell[Optional[Machine]],
        taken: Callable[[Settings], None],
    ) -> None:
        self._settings = settings
        self._identify = identify
        self._machine = machine
        self._taken = taken
        self._read = read
        self._stamp = stamp
        self._files = files
        self._accepted = accepted
        self._asked = True
        self._seen = ""
        self._problem: Optional[Misconfigured] = None

    def reload(self) -> None:
        """From the thread that heeds SIGHUP, before it rings the loop's bell."""
        self._asked = True

    def reconcile(self) -> Settled:
        stamp = self._stamp()
        unhappy = self._problem is not None or self._settings.get() is None
        if self._asked or (unhappy and stamp != self._seen):
            self._asked = False
            self._seen = stamp
            try:
                self._problem = None if self._unchanged(stamp) else self._take(stamp)
            except Misconfigured as e:
                self._problem = e
            except LocalFault:  # nothing was read: the next pass tries again
                self._asked = True
                raise
        if self._problem is not None:
            raise self._problem
        if self._settings.get() is None:
            return Settled("no configuration in /etc/vmoor/conf.d", LOOK_S, waiting=True)
        return Settled("accepted", CALM_S)

    def _unchanged(self, stamp: str) -> bool:
        """At a start: whether just these files were accepted before, and are taken so."""
        if self._settings.get() is not None:
            return False
        kept = self._kept()
        if kept.get("stamp") != stamp:
            return False
        self._take_accepted(kept)
        return True

    def _take(self, stamp: str) -> Optional[Misconfigured]:
        read = self._read()
        if read.problems:
            if self._settings.get() is None:
                self._take_accepted(self._kept())
            if read.none and self._settings.get() is None:
                return None
            kept = "the accepted configuration runs on" if self._settings.get() else "not started"
            return Misconfigured(read.problems, remedy=f"mend it, see `vmoor check`; {kept}")
        fresh = settings_from(read.document)
        machine = self._identify(fresh.vm.name)
        refused = _needs_restart(self._settings.get(), fresh)
        if refused:
            return Misconfigured([refused], remedy="systemctl stop vmoor && systemctl start vmoor")
        text = json.dumps({"stamp": stamp, "document": read.document}, sort_keys=True)
        self._files.write(self._accepted, text.encode(), 0o600, durable=True)
        self._use(fresh, machine)
        log.info("Configuration accepted, services: %s", ", ".join(s.name for s in fresh.services))
        return None

    def _kept(self) -> Mapping[str, Any]:
        """The record of what was accepted last; {} when there is none that can be read."""
        return record.parsed(self._files.read(self._accepted))

    def _take_accepted(self, kept: Mapping[str, Any]) -> None:
        if not kept:
            return
        try:
            settings = settings_from(kept["document"])
        except (ValueError, KeyError, TypeError) as e:
            raise LocalFault(
                f"cannot use {self._accepted}: {type(e).__name__}", remedy=f"rm {self._accepted}"
            ) from e
        self._use(settings, self._identify(settings.vm.name))

    def _use(self, settings: Settings, machine: Machine) -> None:
        self._taken(settings)
        self._machine.set(machine)
        self._settings.set(settings)


def _needs_restart(old: Optional[Settings], new: Settings) -> str:
    """Who the VM is does not change under running entries."""
    if old is None:
        return ""
    for what, before, after in (
        ("vm.name", old.vm.name, new.vm.name),
        ("workload", old.workload, new.workload),
    ):
        if before != after:
            return f"{what} has changed and takes a restart of the agent"
    return ""
