"""One VM's identity in a fake world in which everything is well."""

from __future__ import annotations

import base64
from typing import Any, Optional

from vmoor.config.settings import AppRole, MeshSource, Settings, VaultSettings
from vmoor.controllers.identity import Identity
from vmoor.model.credential import Credentials
from vmoor.model.identity import IdentityState
from vmoor.model.service import Workload
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Loop

from tests.fakes.clock import FakeClock
from tests.fakes.files import FakeFiles
from tests.fakes.vault import FakeVault, KubernetesRole, Role

SECRET_ID = "/etc/vmoor/credentials/secret-id"
PEM = (
    "-----BEGIN CERTIFICATE-----\n"
    + base64.b64encode(b"\x30\x03abc").decode()
    + "\n-----END CERTIFICATE-----\n"
)
FACTS: dict[str, Any] = {
    "version": 1,
    "kubernetes": {"server": ["https://198.18.0.1:6443"], "ca": PEM},
    "istio": {"discovery": ["198.18.0.1:15012"], "san": "istiod.rig", "root_ca": PEM},
}


class World:
    def __init__(self, auth: Optional[AppRole] = None) -> None:
        self.clock = FakeClock()
        self.files = FakeFiles()
        self.vault = FakeVault(self.clock)
        self.vault.roles["shop-web"] = Role()
        self.vault.policies["web"] = {"secret/vmoor/", "kubernetes/creds/web"}
        self.vault.kv[("secret", "vmoor/mesh-a")] = FACTS
        self.vault.kubernetes = {
            "web": KubernetesRole("web"),
            "web-vmoor": KubernetesRole("web-vmoor"),
        }
        self.vault.accounts = {("shop", "web"), ("shop", "web-vmoor")}
        self.settings: Cell[Optional[Settings]] = Cell(
            Settings(
                vault=VaultSettings(("https://vault:8200",), auth or AppRole("shop-web")),
                mesh=MeshSource("secret", "vmoor/mesh-a"),
                workload=Workload("shop", "web", "web"),
            )
        )
        if auth is None:
            self.put_secret_id(self.vault.new_secret_id("shop-web"))
        self.start()

    def put_secret_id(self, value: str) -> None:
        self.files.content[SECRET_ID] = value.encode() + b"\n"

    def start(self) -> None:
        """The agent's process starts (again): what is on the disk and in /run is all it has."""
        self.credentials: Cell[Optional[Credentials]] = Cell(None)
        self.state = Cell(IdentityState())
        self.bell = Bell()
        self.identity = Identity(
            settings=self.settings,
            credentials=self.credentials,
            state=self.state,
            bell=self.bell,
            connect=lambda _: self.vault,
            files=self.files,
            clock=self.clock,
            random=lambda: 0.5,
        )
        self.loop = Loop(
            "identity",
            self.identity.reconcile,
            self.bell,
            self.clock,
            refused=self.identity.refuse,
        )

    def turn(self) -> float:
        self.vault.calls.clear()
        return self.loop.turn()

    @property
    def words(self) -> str:
        return self.loop.outcome.get().words

    @property
    def held(self) -> Credentials:
        credentials = self.credentials.get()
        assert credentials is not None, self.words
        return credentials
