"""Credentials and when they are renewed. Times are Unix seconds, as tokens carry them."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from vmoor.model.facts import MeshFacts
from vmoor.model.secret import Secret

JITTER = 0.1  # of the half life: a fleet that booted together does not renew together


@dataclass(frozen=True)
class Credential:
    """A token, from when to when it is good, and which fetch it came from."""

    value: Secret
    issued: float
    expires: float
    generation: int
    source: str = ""

    def renew_at(self, random: float) -> float:
        """Half the lifetime, 10 % earlier or later; `random` is from 0 to 1."""
        half = (self.expires - self.issued) / 2
        return self.issued + half * (1 + JITTER * (2 * random - 1))

    def good(self, now: float) -> bool:
        return now < self.expires


class Credentials(NamedTuple):
    """What the other controllers need of identity: the mesh's facts and the two tokens."""

    facts: MeshFacts
    api: Credential
    istio: Credential


def claims(token: Secret) -> Mapping[str, Any]:
    """The payload of a JWT, not verified (its verifier is the API server). {} if it is none."""
    parts = token.reveal().split(".")
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7519: header.payload.signature
        return {}
    padded = parts[1] + "=" * (-len(parts[1]) % 4)
    try:
        payload = json.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError):
        return {}
    return payload if isinstance(payload, dict) else {}


def subject_mismatch(token: Secret, namespace: str, account: str) -> Optional[str]:
    """None when the token names that ServiceAccount, else what it names instead."""
    subject = claims(token).get("sub")
    want = f"system:serviceaccount:{namespace}:{account}"
    return None if subject == want else f"token is for {subject!r}, not for {want!r}"
