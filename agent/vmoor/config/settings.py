"""The accepted configuration as frozen values. `load` makes them; nothing else reads YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from vmoor.model import notice
from vmoor.model.facts import MeshFacts
from vmoor.model.service import Service, Workload

SECRET_ID_FILE = "/etc/vmoor/credentials/secret-id"  # noqa: S105 - a path


class AppRole(NamedTuple):
    """Vault's AppRole login; the keys are Vault Agent's."""

    role_id: str
    secret_id_file_path: str = SECRET_ID_FILE
    # Set = the file holds a wrapping token, made by a request to this path.
    secret_id_response_wrapping_path: str = ""
    mount_path: str = "auth/approle"


@dataclass(frozen=True)
class VaultSettings:
    addresses: tuple[str, ...]
    auth: AppRole
    ca_cert: str = ""  # a file; "" = the system's roots
    namespace: str = ""


class MeshSource(NamedTuple):
    """Where the mesh facts are: in Vault KV, or inline."""

    kv_mount: str = ""
    kv_path: str = ""
    inline: Optional[MeshFacts] = None
    revision: str = ""  # overrides of what the facts say, "" = no override
    network: str = ""

    @property
    def name(self) -> str:
        """What people call this mesh: the last part of its path."""
        return self.kv_path.rsplit("/", 1)[-1] if self.kv_path else "inline"


CLOUD_PUBLIC = "cloud-public"


@dataclass(frozen=True)
class VmSettings:
    name: str = ""  # "" = instance id, else hostname
    address: str = ""  # or CLOUD_PUBLIC; "" = the address of the route to istiod
    interface: str = ""
    cidr: str = ""
    locality: str = ""  # "" = cloud-init's region/zone
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def fixed_address(self) -> str:
        """The one that the configuration itself names."""
        return "" if self.address == CLOUD_PUBLIC else self.address


class ConsulSource(NamedTuple):
    """The Consul agent of this VM."""

    address: str = "http://127.0.0.1:8500"
    token_file: str = ""  # "" = no token
    require_tag: str = "vmoor"  # "" = all services


class FileSource(NamedTuple):
    """A JSON file that another program writes."""

    path: str
    period: float = 1.0  # seconds; a stat, since files tell nobody without privilege

    @property
    def shown(self) -> str:
        return self.path


class ExecSource(NamedTuple):
    """A command that prints such JSON; times in seconds."""

    command: tuple[str, ...]
    period: float
    timeout: float

    @property
    def shown(self) -> str:
        return self.command[0]


class ProxySettings(NamedTuple):
    pilot_agent: str = "/usr/local/bin/pilot-agent"
    envoy: str = "/usr/local/bin/envoy"
    bootstrap_template: str = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"
    concurrency: Optional[int] = None
    config: Mapping[str, Any] = {}  # ProxyConfig, merged last


class Interception(NamedTuple):
    mode: str = "redirect"  # redirect | none
    dns_capture: bool = True
    ipv6: str = "open"  # | closed


@dataclass(frozen=True)
class Sources:
    """Where services come from beside the configuration; None = not from there."""

    systemd: Optional[tuple[str, ...]] = None  # patterns of unit names
    consul: Optional[ConsulSource] = None
    file: Optional[FileSource] = None
    exec: Optional[ExecSource] = None
    sockets: Optional[tuple[Service, ...]] = None  # those of the allow-list, one port each

    def lacks(self, name: str) -> bool:
        """Whether this is the name of a source that is not configured."""
        return vars(self).get(name, name) is None


class Leave(NamedTuple):
    on_stop: bool = True
    keep_entries: bool = False
    notices: str = notice.NONE  # or AUTO, or one of CLOUDS
    metadata: str = "http://169.254.169.254"  # of AWS, Google and Azure alike


@dataclass(frozen=True)
class Settings:
    vault: VaultSettings
    mesh: MeshSource
    workload: Workload
    services: tuple[Service, ...] = ()
    vm: VmSettings = field(default_factory=VmSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    interception: Interception = field(default_factory=Interception)
    log_level: str = "info"
    sources: Sources = field(default_factory=Sources)
    leave: Leave = field(default_factory=Leave)
    drain_timeout: float = 30.0  # seconds
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # commands, by name
    metrics_listen: str = ""  # HOST:PORT; "" = not served

    @property
    def closes_ipv6(self) -> bool:
        return self.interception.mode != "none" and self.interception.ipv6 == "closed"

    def lacks(self, step: str) -> bool:
        """Whether this step is that of something that is not configured."""
        given = {"notices": self.noticing, "metrics": bool(self.metrics_listen)}
        return self.sources.lacks(step) or not given.get(step, True)

    @property
    def noticing(self) -> bool:
        return self.leave.notices != notice.NONE
