"""The mesh facts: what a VM must know of its mesh. The keys are a contract (docs/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ISTIO_AUDIENCE = "istio-ca"  # what istiod asks TokenReview for: its TOKEN_AUDIENCES


class KubernetesFacts(NamedTuple):
    server: tuple[str, ...]
    ca: str
    vault_mount: str = "kubernetes"
    vault_role: str = ""  # "" = service account + "-vmoor"


@dataclass(frozen=True)
class IstioFacts:
    discovery: tuple[str, ...]
    san: str
    root_ca: str
    vault_role: str = ""  # "" = service account
    revision: str = ""
    mesh_id: str = ""
    cluster: str = "Kubernetes"
    network: str = ""
    trust_domain: str = "cluster.local"
    proxy_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeshFacts:
    kubernetes: KubernetesFacts
    istio: IstioFacts
