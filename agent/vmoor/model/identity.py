"""What identity holds: the Vault token, the mesh facts as they were read, the two tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from vmoor.model.credential import Credential
from vmoor.model.secret import Secret


@dataclass(frozen=True)
class VaultToken:
    value: Secret
    issued: float  # Unix seconds
    expires: float
    renewable: bool
    policies: tuple[str, ...] = ()

    def good(self, now: float) -> bool:
        return now < self.expires


@dataclass(frozen=True)
class IdentityState:
    """For people: how it logged in, and the Unix seconds at which things end (0 = not there)."""

    method: str = "approle"
    role: str = ""
    vault_expires: float = 0.0
    api_expires: float = 0.0
    istio_expires: float = 0.0
    policies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Held:
    """All that identity has; kept in /run/vmoor over restarts of the agent."""

    fingerprint: str = ""  # of the configuration that it was fetched for
    workload: str = ""  # namespace/service_account, likewise
    vault: Optional[VaultToken] = None
    vault_life: float = 0.0  # seconds that a token from a login lives; renewals may give less
    facts: Optional[Mapping[str, Any]] = field(default=None, repr=False)  # as read from KV
    api: Optional[Credential] = None
    istio: Optional[Credential] = None
    generation: int = 0  # of the newest credential


def fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def encode(held: Held) -> bytes:
    document = asdict(held)
    for name in ("vault", "api", "istio"):
        token = getattr(held, name)
        if token is not None:
            document[name]["value"] = token.value.reveal()
    return json.dumps(document).encode()


def decode(content: Optional[bytes]) -> Held:
    """An empty one for anything that `encode` did not write."""
    try:
        document = json.loads(content or b"{}")
        for name, kind in (("vault", VaultToken), ("api", Credential), ("istio", Credential)):
            if document.get(name) is not None:
                document[name] = _token(kind, document[name])
        return Held(**document)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Held()


def _token(kind: Any, fields: Mapping[str, Any]) -> Any:
    made = dict(fields, value=Secret(fields["value"]))
    if "policies" in made:
        made["policies"] = tuple(made["policies"])
    return kind(**made)
