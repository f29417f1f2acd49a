"""One VM whose services are looked at."""

from __future__ import annotations

from collections.abc import Mapping

from vmoor.controllers import health
from vmoor.model.discovered import Discovered
from vmoor.model.health import Health, Verdict
from vmoor.model.process import ProcessState
from vmoor.model.proxy import ProxyState
from vmoor.model.service import Check, HttpProbe, ProcessProbe, Service, TtlProbe, UnitProbe
from vmoor.model.ttl import Heard
from vmoor.runtime.cell import Cell

from tests.fakes.prober import FakeProbes
from tests.fakes.units import FakeUnits

WEB = Service(
    "web", {"http": 8080}, (Check("unit web.service", UnitProbe("web.service", (8080,))),)
)
HTTP = Check("http /healthz", HttpProbe("/healthz", 9090), period=5.0)
PID_FILE = "/run/db.pid"
DB = Service("db", {"sql": 5432}, (Check("process", ProcessProbe(PID_FILE)),))
TTL_S = 30.0
APP = Service("app", {"http": 7070}, (Check("ttl 30s", TtlProbe("app", TTL_S, "app")),))
API = Service("api", {"http": 9090}, (HTTP,))


class World:
    """One VM whose proxy is live; the clock moves when a test says so."""

    def __init__(self, *services: Service) -> None:
        self.at = 100.0
        self.units = FakeUnits("web.service")
        self.units.watch(["web.service"])
        self.processes: Cell[Mapping[str, ProcessState]] = Cell({})
        self.heard: Cell[Mapping[str, Heard]] = Cell({})
        self.prober = FakeProbes()
        self.discovered = Cell(Discovered(services))
        self.proxy = Cell(ProxyState(live=True, words="live"))
        self.verdicts: Cell[Mapping[str, Verdict]] = Cell({})
        self.controller = health.Health(
            discovered=self.discovered,
            unit_states=self.units.states,
            process_states=self.processes,
            heard=self.heard,
            proxy_state=self.proxy,
            verdicts=self.verdicts,
            probes=self.prober,
            clock=self,
            random=lambda: 0.5,
        )

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return self.at

    def look(self, after: float = 0.0) -> float:
        """One pass after so many seconds; how long until the next is due."""
        self.at += after
        return self.controller.reconcile().again

    def settle(self, after: float = 0.0) -> None:
        """A pass that probes, and the one that reads what came of it."""
        self.look(after)
        self.look()

    def health(self, name: str = "web") -> Health:
        return self.verdicts.get()[name].health

    def words(self, name: str = "web") -> str:
        return self.verdicts.get()[name].words
