"""The response-wrapped SecretID: a token in a file that can be unwrapped once, by anyone.

    none ──lookup fine──► unwrapping ──unwrapped──► used + SecretID
              │                │
           refused        (killed here) interrupted: a new token is needed

`unwrapping` is on the disk before the unwrap is sent, and the SecretID comes with `used` in one
rename: so at every instant the disk tells whether the one unwrap may have been ours. A file with
another token starts from none.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, field
from typing import Optional

from vmoor.model.secret import Secret

UNWRAPPING = "unwrapping"
USED = "used"


@dataclass(frozen=True)
class Wrapped:
    """What is on the disk; `sha256` names the wrapping token, which itself is never stored."""

    sha256: str = ""
    state: str = ""
    secret_id: Secret = field(default_factory=lambda: Secret(""))


class Decision(enum.Enum):
    WAIT = "there is no token yet"
    UNWRAP = "an unknown token: look it up, then unwrap it"
    USE = "the stored SecretID is this token's"
    INTERRUPTED = "an unwrap of this token was begun, and nobody knows how it ended"
    REFUSED = "this very token was refused before"


def digest(token: Secret) -> str:
    return hashlib.sha256(token.reveal().encode()).hexdigest()


def decide(token: Optional[Secret], stored: Wrapped, refused: str) -> Decision:
    """`refused` is the digest of the token that Vault refused, "" = none."""
    if token is None:
        return Decision.USE if stored.state == USED else Decision.WAIT
    name = digest(token)
    if stored.state == USED and stored.sha256 == name:
        return Decision.USE
    if refused == name:
        return Decision.REFUSED
    if stored.state == UNWRAPPING and stored.sha256 == name:
        return Decision.INTERRUPTED
    return Decision.UNWRAP


def encode(wrapped: Wrapped) -> bytes:
    document = {"sha256": wrapped.sha256, "state": wrapped.state}
    if wrapped.state == USED:
        document["secret_id"] = wrapped.secret_id.reveal()
    return json.dumps(document).encode()


def decode(content: Optional[bytes]) -> Wrapped:
    """None-state for a missing or damaged file: the lookup then tells the truth."""
    try:
        document = json.loads(content or b"{}")
        secret_id = Secret(str(document.get("secret_id", "")))
        return Wrapped(str(document["sha256"]), str(document["state"]), secret_id)
    except (ValueError, KeyError, AttributeError):
        return Wrapped()
