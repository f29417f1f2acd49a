"""One VM's heartbeat, observer, registration and leaving over any cluster, without threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from vmoor.config.settings import AppRole, MeshSource, Settings, VaultSettings
from vmoor.controllers.claim import Claiming
from vmoor.controllers.heartbeat import Heartbeat
from vmoor.controllers.leaving import Leaving
from vmoor.controllers.observer import Observer
from vmoor.controllers.registration import Registration
from vmoor.model.claim import Claimed
from vmoor.model.credential import Credential, Credentials
from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained
from vmoor.model.entry import EntryState, Owner
from vmoor.model.facts import IstioFacts, KubernetesFacts, MeshFacts
from vmoor.model.health import Health, Verdict
from vmoor.model.lease import Beat, Lock, Pace
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState
from vmoor.model.registration import Observed
from vmoor.model.secret import Secret
from vmoor.model.selection import Selection
from vmoor.model.service import Service, Workload
from vmoor.model.sight import Sight
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

from tests.fakes.envoy import FakeEnvoy

WORKLOAD = Workload("shop", "web", "web", {"version": "v1"})
OWNER = Owner("vm1", "web")
WALL = 1_790_000_000.0


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL + self.at

    def pass_by(self, seconds: float) -> None:
        self.at += seconds


class Disk:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def read(self, path: str) -> Optional[bytes]:
        return self.files.get(path)

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        self.files[path] = content

    def remove(self, path: str) -> None:
        self.files.pop(path, None)


def credentials(
    server: Sequence[str] = ("https://198.18.0.1:6443",), ca: str = "CA", token: str = "api"
) -> Credentials:
    return Credentials(
        MeshFacts(
            KubernetesFacts(tuple(server), ca),
            IstioFacts(("198.18.0.1:15012",), "istiod.rig", "ROOT"),
        ),
        api=Credential(Secret(token), 0.0, 1e12, 7),
        istio=Credential(Secret("istio"), 0.0, 1e12, 1),
    )


def service(name: str, port: int = 8080, weight: Optional[int] = None, **labels: str) -> Service:
    return Service(name, {"http": port}, (), labels=labels, weight=weight)


def settings(workload: Workload = WORKLOAD) -> Settings:
    return Settings(
        vault=VaultSettings(addresses=("https://vault.example:8200",), auth=AppRole(role_id="r")),
        mesh=MeshSource(kv_mount="secret", kv_path="vmoor/mesh-a"),
        workload=workload,
    )


class Vm:
    """`boot` makes the next boot of the same machine: new processes, the same disk."""

    def __init__(
        self,
        cluster: Any,
        *,
        name: str = "vm1",
        machine: str = "m1",
        boot: str = "b1",
        address: str = "10.0.0.1",
        clock: Optional[Clock] = None,
        disk: Optional[Disk] = None,
        envoy: Optional[FakeEnvoy] = None,
    ) -> None:
        self.cluster = cluster
        self.clock = clock or Clock()
        self.disk = disk or Disk()
        self.envoy = envoy or FakeEnvoy()
        self.machine = Machine(name, machine, boot)
        self.address = address
        self.settings: Cell[Optional[Settings]] = Cell(settings())
        self.credentials: Cell[Optional[Credentials]] = Cell(credentials())
        self.discovered = Cell(Discovered((service("web"),), address, "eu/a"))
        self.own_address = Cell(address)
        self.verdicts: Cell[Mapping[str, Verdict]] = Cell({})
        self.drained = Cell(Drained())
        self.proxy_state = Cell(ProxyState(live=True, invocation_id="i1"))
        self.lock, self.beat, self.pace = Cell(Lock()), Cell(Beat()), Cell(Pace())
        self.label: Cell[Optional[str]] = Cell(None)
        self.claimed = Cell(Claimed())
        self.draw = 0.0  # what chance draws for the claim: 0 = verifies at once
        self.observed = Cell(Observed())
        self.registered: Cell[tuple[EntryState, ...]] = Cell(())
        self.sights: Cell[Mapping[str, Sight]] = Cell({})
        self.selections: Cell[Mapping[str, Selection]] = Cell({})
        own = {"machine": self.machine, "cluster": cluster}
        self.told: list[str] = []
        self.heartbeat = Heartbeat(
            settings=self.settings,
            credentials=self.credentials,
            label=self.label,
            lock=self.lock,
            beat=self.beat,
            pace=self.pace,
            drained=self.drained,
            clock=self.clock,
            random=lambda: 0.5,
            **own,
        )
        self.claiming = Claiming(
            settings=self.settings,
            credentials=self.credentials,
            address=self.own_address,
            lock=self.lock,
            pace=self.pace,
            label=self.label,
            claimed=self.claimed,
            clock=self.clock,
            random=lambda: self.draw,
            **own,
        )
        self.observer = Observer(
            settings=self.settings, credentials=self.credentials, observed=self.observed, **own
        )
        self.registration = Registration(
            settings=self.settings,
            credentials=self.credentials,
            discovered=self.discovered,
            verdicts=self.verdicts,
            drained=self.drained,
            proxy_state=self.proxy_state,
            lock=self.lock,
            beat=self.beat,
            claimed=self.claimed,
            observed=self.observed,
            registered=self.registered,
            selections=self.selections,
            files=self.disk,
            clock=self.clock,
            **own,
        )
        self.leaving = Leaving(
            settings=self.settings,
            lock=self.lock,
            beat=self.beat,
            sights=self.sights,
            envoy=self.envoy,
            files=self.disk,
            clock=self.clock,
            tell=self.told.append,
            pause=self.clock.pass_by,
            **own,
        )

    def boot(self, boot: str, *, address: str = "10.0.0.1") -> Vm:
        return Vm(
            self.cluster,
            machine=self.machine.machine_hash,
            boot=boot,
            address=address,
            clock=self.clock,
            disk=self.disk,
        )

    def serve(self, *services: Service) -> None:
        self.discovered.set(Discovered(services, self.address, "eu/a"))
        self.own_address.set(self.address)

    def judge(self, **healthy: Optional[bool]) -> None:
        """Names of services to True, False, or None for unknown."""
        verdicts = {True: Health.HEALTHY, False: Health.UNHEALTHY, None: Health.UNKNOWN}
        words = {True: "Passed", False: "CheckFailed", None: "NotChecked"}
        self.verdicts.set(
            {n: Verdict(verdicts[h], words[h], f"{words[h]}: {n}") for n, h in healthy.items()}
        )

    def beat_once(self) -> Settled:
        """And what follows of it for the claim of the address."""
        settled = self.heartbeat.reconcile()
        self.claim()
        return settled

    def claim(self) -> Settled:
        """One pass, and as many more as its bells ring for at once."""
        settled = self.claiming.reconcile()
        for _ in range(4):
            lock = self.lock.get()
            if not lock.held or self.label.get() in (None, lock.label):
                break
            self.heartbeat.reconcile()
            settled = self.claiming.reconcile()
        return settled

    def watch(self) -> None:
        """As much of the watch as there is: a LIST if one is due, then one watch."""
        if self.observer.reconcile().words == "listed":
            self.observer.reconcile()

    def register(self) -> Settled:
        return self.registration.reconcile()

    def moor(self, **healthy: Optional[bool]) -> None:
        self.judge(**(healthy or {"web": True}))
        self.beat_once()
        self.watch()
        self.register()
        self.watch()
