"""What the controllers need of the world, in small protocols. Adapters fulfil them.

Every call has a hard deadline in seconds for the whole of it and raises only classes of
`vmoor.errors`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Protocol

from vmoor.config.settings import AppRole, ConsulSource
from vmoor.model import entry
from vmoor.model.catalog import Declared, Said
from vmoor.model.identity import VaultToken
from vmoor.model.notice import Notice
from vmoor.model.proxy import UnitState
from vmoor.model.secret import Secret
from vmoor.model.sight import Clusters

Object = Mapping[str, Any]  # a Kubernetes object as JSON


class Clock(Protocol):
    def now(self) -> float:
        """Seconds of CLOCK_BOOTTIME: for intervals; counts while the VM is suspended."""
        ...

    def wall(self) -> float:
        """Unix seconds: for timestamps that leave the machine or come from elsewhere."""
        ...


class Files(Protocol):
    def read(self, path: str) -> Optional[bytes]:
        """The content (at most 1 MiB), None when there is no such file. Raises LocalFault."""
        ...

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        """Whole or not at all: temp file, fchmod, rename; `durable` = fsync file and directory."""
        ...

    def remove(self, path: str) -> None: ...


@dataclass(frozen=True)
class Minted:
    """A ServiceAccount token from Vault's Kubernetes engine; Unix seconds."""

    value: Secret
    issued: float
    expires: float


class Vault(Protocol):
    def close(self) -> None: ...

    def login(self, auth: AppRole, secret_id: Secret) -> VaultToken: ...

    def renew(self, token: VaultToken) -> VaultToken: ...

    def wrapping_path(self, wrapping_token: Secret) -> str:
        """`creation_path` of sys/wrapping/lookup. Raises Rejected when there is no such token."""
        ...

    def unwrap_secret_id(self, wrapping_token: Secret) -> Secret:
        """Good once: the second call raises Rejected."""
        ...

    def read_kv(self, token: VaultToken, mount: str, path: str) -> Mapping[str, Any]:
        """The newest version of a KV v2 or v1 secret. Raises Rejected when it is missing."""
        ...

    def mint(
        self, token: VaultToken, mount: str, role: str, namespace: str, audience: str
    ) -> Minted: ...


class Kind(enum.Enum):
    LEASE = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    ENTRY = "/apis/networking.istio.io/v1/namespaces/{namespace}/workloadentries"
    EVENT = "/api/v1/namespaces/{namespace}/events"
    SERVICE_ENTRY = "/apis/networking.istio.io/v1/namespaces/{namespace}/serviceentries"
    SERVICE = "/api/v1/namespaces/{namespace}/services"


@dataclass(frozen=True)
class Change:
    """One event of a watch: ADDED, MODIFIED, DELETED, or BOOKMARK (a version, no object)."""

    type: str
    object: Object


class Cluster(Protocol):
    """The API server, with the API token, in one namespace: at first the workload's."""

    def within(self, namespace: str) -> Cluster:
        """The same server over the same connections, elsewhere; "" = list and watch everywhere."""
        ...

    def get(self, kind: Kind, name: str, *, deadline: float) -> Optional[Object]: ...

    def list(self, kind: Kind, selector: str, *, deadline: float) -> tuple[Sequence[Object], str]:
        """The objects, and the list's resourceVersion. `selector` "" = all of the namespace."""
        ...

    def create(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        """Raises Conflict when one of that name exists."""
        ...

    def replace(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        """PUT; raises Conflict when metadata.resourceVersion is not the newest."""
        ...

    def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        force: bool,
        status: bool = False,
        manager: str = entry.OWNER,
        deadline: float,
    ) -> Object:
        """Server-side apply as that field manager; `status` = on the status subresource."""
        ...

    def delete(
        self, kind: Kind, name: str, *, uid: str, resource_version: str, deadline: float
    ) -> None:
        """With preconditions; raises Conflict when they do not hold; gone already is fine."""
        ...

    def watch(self, kind: Kind, selector: str, resource_version: str) -> Iterator[Change]:
        """Until the server ends it (300-600 s) or it is silent for too long.

        Raises Conflict when the resourceVersion is too old (410): list anew.
        """
        ...


class Units(Protocol):
    """systemd over D-Bus, unprivileged but for vmoor-proxy.service (polkit)."""

    def watch(self, names: Sequence[str]) -> None:
        """Keep the states of exactly these units; their bells ring on a change."""
        ...

    def state(self, name: str) -> UnitState:
        """The last known state, no round trip; its `load` is "" until it was read once."""
        ...

    def start(self, name: str) -> None:
        """Queues the job and returns; never waits for it."""
        ...

    def restart(self, name: str) -> None: ...

    def stop(self, name: str) -> None: ...

    def job_type(self, name: str) -> str:
        """The type of the unit's pending job (stop, restart, ...), "" when there is none."""
        ...

    def system_state(self) -> str:
        """The manager's SystemState: running, stopping, ..."""
        ...


class Host(Protocol):
    """This VM in its network. Addresses are IPv4; LocalFault when there is none."""

    def interface_address(self, name: str) -> str:
        """The first address of the interface."""
        ...

    def cidr_address(self, cidr: str) -> str:
        """The first address of this VM within the block."""
        ...

    def public_address(self) -> str:
        """The address that the cloud translates to this VM's own, as cloud-init tells it."""
        ...

    def route_address(self, peer: str) -> str:
        """The address that this VM has for the peer, HOST:PORT."""
        ...

    def instance_id(self) -> str:
        """The cloud's, "" when cloud-init does not tell one."""
        ...

    def locality(self) -> str:
        """region/zone as cloud-init tells it, "" when it does not."""
        ...

    def cloud(self) -> str:
        """What cloud-init calls this VM's cloud, "" when it names none."""
        ...


@dataclass(frozen=True)
class Turn:
    """Where a Consul catalog is, 0 = unknown, and what it says of the whole node."""

    index: int = 0
    checks: tuple[Said, ...] = ()


class Consul(Protocol):
    """The Consul agent of this VM. Raises Unavailable, Forbidden and LocalFault."""

    def end(self) -> None:
        """For good, from any thread: what is asked, now or later, is Unavailable at once."""
        ...

    def close(self) -> None: ...

    def node(self, source: ConsulSource) -> str:
        """The agent's name of this VM."""
        ...

    def turn(self, source: ConsulSource, node: str, index: int) -> Turn:
        """Waits for a change since `index`, up to 75 s; 0 = at once."""
        ...

    def declared(self, source: ConsulSource) -> tuple[Sequence[Declared], Sequence[Said]]:
        """The agent's own services and checks, there without any server."""
        ...


class Metadata(Protocol):
    """The metadata service of a cloud. Raises Unavailable."""

    @property
    def period(self) -> float:
        """Seconds until the next look."""
        ...

    def look(self) -> Optional[Notice]:
        """What it announces now, None = nothing; it may wait 70 s for a change."""
        ...

    def close(self) -> None: ...


class Read(Protocol):
    """A validated document, or its problems."""

    @property
    def document(self) -> Object: ...

    @property
    def problems(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Look:
    """A document of services as it is now."""

    version: object  # equal = the same document
    judge: Callable[[], Read]  # costs a process; raises LocalFault
    remedy: str  # how to see all that is wrong with it


class Envoy(Protocol):
    """The admin port of our own Envoy. What it cannot do or tell is no error: it may be gone."""

    def clusters(self, endpoints: Collection[str], *, deadline: float) -> Optional[Clusters]:
        """Which of these IP:PORT it sends to and which ports it takes in; None = no answer."""
        ...

    def drain(self, *, deadline: float) -> bool:
        """Asks clients to go elsewhere, for good; they are served on. False = not done."""
        ...

    def requests(
        self, ports: Optional[Collection[int]] = None, *, deadline: float
    ) -> Optional[int]:
        """How many requests, streams and TCP connections from outside are open to services, or to
        these ports of them; None = no answer.
        """
        ...
