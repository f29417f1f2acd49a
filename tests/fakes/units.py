"""A systemd: units that start, listen, die and are restarted, each life with an id of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vmoor.errors import Forbidden, LocalFault
from vmoor.model.proxy import UnitState
from vmoor.runtime.cell import Cell


class FakeUnits:
    """`denied` are the units that polkit refuses; jobs are done at once."""

    def __init__(self, *installed: str) -> None:
        self.states: Cell[Mapping[str, UnitState]] = Cell({})
        self.denied: set[str] = set()
        self.jobs: dict[str, str] = {}
        self.system = "running"
        self._world = {name: UnitState(name, load="loaded") for name in installed}
        self._watched: Sequence[str] = ()
        self._lives = 0

    # The port

    def watch(self, names: Sequence[str]) -> None:
        self._watched = sorted(names)
        self._show()

    def state(self, name: str) -> UnitState:
        return self.states.get().get(name, UnitState(name, load=""))

    def start(self, name: str) -> None:
        self._may("start", name)
        if self._world[name].active != "active":
            self._live(name)

    def restart(self, name: str) -> None:
        self._may("restart", name)
        self._live(name)

    def stop(self, name: str) -> None:
        self._may("stop", name)
        self._set(name, active="inactive", sub="dead", main_pid=0, result="success")

    def job_type(self, name: str) -> str:
        return self.jobs.get(name, "")

    def system_state(self) -> str:
        return self.system

    # What happens to units

    def kill(self, name: str, *, restarted: bool = False) -> None:
        """The main process dies; with Restart= it is soon back, perhaps before anyone looked."""
        self._set(name, active="failed", sub="failed", main_pid=0, result="signal")
        if restarted:
            self._live(name)

    def say(self, name: str, status_text: str) -> None:
        """The unit's own STATUS=."""
        self._set(name, status_text=status_text)

    def _live(self, name: str) -> None:
        self._lives += 1
        self._set(
            name,
            active="active",
            sub="running",
            main_pid=1000 + self._lives,
            invocation_id=f"{self._lives:032x}",
            result="success",
        )

    def _may(self, verb: str, name: str) -> None:
        if name in self.denied:
            raise Forbidden(f"cannot {verb} {name}: polkit does not allow it", remedy="polkit")
        if name not in self._world:
            raise LocalFault(f"cannot {verb} {name}: Unit {name} not found.")

    def _set(self, name: str, **fields: object) -> None:
        self._world[name] = replace(self._world[name], **fields)  # type: ignore[arg-type]
        self._show()

    def _show(self) -> None:
        self.states.set({n: self._world.get(n, UnitState(n)) for n in self._watched})
