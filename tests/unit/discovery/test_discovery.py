"""The discovery loop, pass by pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Optional

import pytest
from vmoor.config.settings import AppRole, MeshSource, Settings, VaultSettings, VmSettings
from vmoor.controllers import discovery
from vmoor.errors import LocalFault
from vmoor.model.credential import Credential, Credentials
from vmoor.model.discovered import CONFLICT, Discovered, Found
from vmoor.model.facts import IstioFacts, KubernetesFacts, MeshFacts
from vmoor.model.health import Probe
from vmoor.model.secret import Secret
from vmoor.model.service import (
    Check,
    ProcessProbe,
    Service,
    TcpProbe,
    TtlProbe,
    UnitProbe,
    Workload,
)
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

UNIT = Check("unit web.service", UnitProbe("web.service", (8080,)))
WEB = Service("web", {"http": 8080}, (UNIT, Check("tcp 8080", TcpProbe(8080))))
SETTINGS = Settings(
    vault=VaultSettings(("https://vault:8200",), AppRole("web")),
    mesh=MeshSource("secret", "mesh"),
    workload=Workload("shop", "web", "web"),
    services=(WEB,),
)
TOKEN = Credential(Secret("t"), 0.0, 60.0, 1)
CREDENTIALS = Credentials(
    MeshFacts(
        KubernetesFacts(("https://198.18.0.1:6443",), "ca"),
        IstioFacts(("198.18.0.1:15012",), "istiod", "ca"),
    ),
    TOKEN,
    TOKEN,
)


class World:
    """A VM with one interface; it is the port Host itself."""

    def __init__(self, settings: Optional[Settings] = SETTINGS) -> None:
        self.routes = {"198.18.0.1:15012": "198.18.0.11"}
        self.interfaces = {"eth1": "10.0.0.5"}
        self.region = "eu-west-1/eu-west-1a"
        self.instance = "i-0abc"
        self.watched: Sequence[str] = ()
        self.pid_files: Sequence[str] = ()
        self.speaking: Sequence[TtlProbe] = ()
        self.settings: Cell[Optional[Settings]] = Cell(settings)
        self.credentials: Cell[Optional[Credentials]] = Cell(None)
        self.discovered = Cell(Discovered())
        self.address = Cell("")
        self.consul = Cell(Found())
        self._controller = discovery.Discovery(
            settings=self.settings,
            credentials=self.credentials,
            discovered=self.discovered,
            address=self.address,
            sources={"consul": self.consul},
            host=self,
            vm="web-1",
            watch_units=self._watch,
            watch_processes=self._watch_processes,
            watch_pushes=self._watch_pushes,
        )

    def look(self) -> Settled:
        return self._controller.reconcile()

    def _watch(self, names: Sequence[str]) -> None:
        self.watched = names

    def _watch_processes(self, paths: Sequence[str]) -> None:
        self.pid_files = paths

    def _watch_pushes(self, probes: Iterable[TtlProbe]) -> None:
        self.speaking = tuple(probes)

    def interface_address(self, name: str) -> str:
        return self.interfaces[name]

    def cidr_address(self, cidr: str) -> str:
        return f"within {cidr}"

    def public_address(self) -> str:
        return "203.0.113.7"

    def route_address(self, peer: str) -> str:
        if peer not in self.routes:
            raise LocalFault(f"cannot tell this VM's address: no route to istiod at {peer}")
        return self.routes[peer]

    def instance_id(self) -> str:
        return self.instance

    def locality(self) -> str:
        return self.region


def test_services_are_known_before_the_address() -> None:
    """Checks begin while the VM is still mooring; the step says what it waits for."""
    world = World()
    assert world.look() == Settled("waiting for identity", 300.0, waiting=True)
    assert world.discovered.get() == Discovered((WEB,), "", "eu-west-1/eu-west-1a")
    assert world.watched == ["web.service"]


def test_pid_files_of_all_sources_are_watched() -> None:
    """Each path that a check names, and no others."""
    process = Check("process", ProcessProbe("/run/db.pid"))
    world = World()
    world.consul.set(Found((Service("db", {"sql": 5432}, (process,)),)))
    world.look()
    assert world.pid_files == ["/run/db.pid"]
    world.consul.set(Found())
    world.look()
    assert world.pid_files == []


def test_applications_that_speak_are_listened_to() -> None:
    """Each ttl check of the services there are, and none of one that is gone."""
    probe = TtlProbe("app", 30.0, "app")
    app = Service("app", {"http": 81}, (Check("ttl 30s", probe), WEB.checks[1]))
    world = World(replace(SETTINGS, services=(WEB, app)))
    world.look()
    assert world.speaking == (probe,)
    world.settings.set(SETTINGS)
    world.look()
    assert world.speaking == ()


def test_without_settings_there_is_nothing() -> None:
    """No configuration, no service."""
    world = World(None)
    assert world.look().waiting
    assert world.discovered.get() == Discovered()


def test_the_address_is_that_of_the_route_to_istiod() -> None:
    """Once the facts are here, and again when the route has changed."""
    world = World()
    world.credentials.set(CREDENTIALS)
    assert world.look() == Settled("198.18.0.11, 1 service", 300.0)
    world.routes["198.18.0.1:15012"] = "198.18.0.12"
    world.look()
    assert world.discovered.get().address == "198.18.0.12"


def test_an_address_outlives_what_it_was_told_by() -> None:
    """Neither a dropped credential nor a missing route takes the VM's address away."""
    world = World()
    world.credentials.set(CREDENTIALS)
    world.look()
    world.credentials.set(None)
    world.settings.set(replace(SETTINGS, services=()))
    assert world.look() == Settled("198.18.0.11, 0 services", 300.0)
    assert world.discovered.get().services == ()
    world.credentials.set(CREDENTIALS)
    world.routes.clear()
    with pytest.raises(LocalFault, match="no route"):
        world.look()
    assert world.discovered.get().address == "198.18.0.11"


@pytest.mark.parametrize(
    ("vm", "address"),
    [
        (VmSettings(address="192.0.2.7"), "192.0.2.7"),
        (VmSettings(address="cloud-public"), "203.0.113.7"),
        (VmSettings(interface="eth1"), "10.0.0.5"),
        (VmSettings(cidr="10.0.0.0/8"), "within 10.0.0.0/8"),
    ],
)
def test_the_configuration_overrides_the_route(vm: VmSettings, address: str) -> None:
    """No facts are needed then."""
    world = World(replace(SETTINGS, vm=vm))
    assert not world.look().waiting
    assert world.discovered.get().address == address


def test_a_locality_of_the_configuration_overrides_the_clouds() -> None:
    """vm.locality is taken as it stands."""
    world = World(replace(SETTINGS, vm=VmSettings(address="192.0.2.7", locality="a/b/c")))
    world.look()
    assert world.discovered.get().locality == "a/b/c"


def test_sources_are_merged_by_name() -> None:
    """What Consul declares stands beside the configuration, with the unit that owns it watched."""
    world = World(replace(SETTINGS, vm=VmSettings(address="192.0.2.7")))
    api = Service("api", {"http": 9090}, (), source="consul")
    world.consul.set(Found((api,), {"api": Probe(passed=True, words="passing")}))
    assert world.look().words == "192.0.2.7, 2 services"
    found = world.discovered.get()
    assert (found.services, found.told["api"].words) == ((api, WEB), "passing")


def test_it_waits_for_every_source() -> None:
    """A list without what is not found yet would take it out of the mesh; units are watched."""
    world = World(replace(SETTINGS, vm=VmSettings(address="192.0.2.7")))
    world.consul.set(Found(units=("idle.service",), ready=False))
    assert world.look() == Settled("waiting for the sources", 300.0, waiting=True)
    assert world.discovered.get() == Discovered()
    assert world.watched == ["idle.service", "web.service"]
    world.consul.set(Found(units=("idle.service",)))
    assert world.look().words == "192.0.2.7, 1 service"


def test_a_conflict_is_told_and_the_first_source_counts() -> None:
    """The same name or the same port: the configuration's service goes on, others do not."""
    world = World(replace(SETTINGS, vm=VmSettings(address="192.0.2.7")))
    world.consul.set(
        Found(
            (
                Service("web", {"http": 7070}, (), source="consul"),
                Service("shop", {"http": 8080}, (), source="consul"),
                Service("db", {"tcp": 5432}, (), source="consul"),
            ),
            {"web": Probe(passed=False, words="critical")},
        )
    )
    told = world.look()
    assert (told.wrong, told.remedy) == (True, CONFLICT)
    assert told.words.startswith(
        "consul has a service web, too: that of static counts (and 1 more"
    )
    found = world.discovered.get()
    assert [s.name for s in found.services] == ["db", "web"]
    assert found.services[1] is WEB
    assert found.told == {}
    assert "shop of consul has port 8080, which is web's" in found.problems[1]


def test_a_problem_of_a_source_is_told_with_its_remedy() -> None:
    """The first problem's; it is no reason to look again before a source changes."""
    world = World(replace(SETTINGS, vm=VmSettings(address="192.0.2.7")))
    world.consul.set(Found(problems=("api has no port",), remedy="declare one"))
    assert world.look() == Settled("api has no port", 300.0, wrong=True, remedy="declare one")
    assert world.discovered.get().services == (WEB,)


def labelled(**labels: str) -> Settings:
    vm = VmSettings(address="192.0.2.7", labels={"rack": "{vm}"})
    return replace(SETTINGS, vm=vm, services=(replace(WEB, labels=labels),))


def test_labels_are_filled_in_for_this_vm() -> None:
    """Each variable, several in one value, in the services' labels and in the VM's own."""
    world = World(labelled(all="{vm}.{instance_id}.{region}.{zone}", tier="front"))
    world.look()
    found = world.discovered.get()
    assert found.labels == {"rack": "web-1"}
    assert found.services[0].labels == {
        "all": "web-1.i-0abc.eu-west-1.eu-west-1a",
        "tier": "front",
    }


def test_labels_follow_the_configured_locality() -> None:
    """As the entry's own locality does, with the subzone that only the configuration knows."""
    settings = labelled(at="{region}-{zone}-{subzone}")
    world = World(replace(settings, vm=replace(settings.vm, locality="eu/a/r7")))
    world.look()
    assert world.discovered.get().services[0].labels == {"at": "eu-a-r7"}


def test_labels_of_other_sources_are_filled_in() -> None:
    """A unit's marker may have variables, too."""
    world = World(labelled())
    api = Service("api", {"http": 9090}, (), labels={"zone": "{zone}"}, source="systemd")
    world.consul.set(Found((api,)))
    world.look()
    assert world.discovered.get().services[0].labels == {"zone": "eu-west-1a"}


@pytest.mark.parametrize(
    ("value", "words", "remedy"),
    [
        ("{zone}", "there is no {zone} here", "set vm.locality"),
        ("{instance_id}", "there is no {instance_id} here", "write {vm}: cloud-init tells none"),
        ("{vm}" * 13, "is not a label's value: at most 63", "write something else than {vm}{vm}"),
    ],
)
def test_a_label_that_cannot_be_is_left_out_and_told(value: str, words: str, remedy: str) -> None:
    """On a VM without a cloud the service stays in the mesh, with its other labels."""
    world = World(labelled(bad=value, tier="front"))
    world.region = world.instance = ""
    told = world.look()
    assert told.wrong
    assert told.words.startswith("service web: label bad is left out, ")
    assert words in told.words
    assert told.remedy.startswith(remedy)
    found = world.discovered.get()
    assert found.address == "192.0.2.7"
    assert found.services[0].labels == {"tier": "front"}


def test_labels_without_variables_ask_nothing_of_the_cloud() -> None:
    """Half-written instance data is no trouble for those who do not need it."""
    world = World(labelled(tier="front", at="{vm}"))
    world.instance_id = _unreadable  # type: ignore[method-assign]
    world.look()
    assert world.discovered.get().services[0].labels == {"tier": "front", "at": "web-1"}


def _unreadable() -> str:
    raise LocalFault("cannot read instance data")
