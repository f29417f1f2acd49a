"""One AppRole login, and the patience after Vault has refused one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from vmoor import errors
from vmoor.config.settings import AppRole
from vmoor.controllers.identity.secretid import SecretIds
from vmoor.model import identity
from vmoor.model.identity import VaultToken
from vmoor.ports import Clock, Vault

# Policies stick to a token at login, so a role that got one since needs a new login; not at
# every retry, for SecretIDs may be limited in uses.
RELOGIN_S = 60.0
# Between logins with a pair that Vault refused. Five refusals lock the *role*, so the whole
# fleet, for 15 minutes, and only a gap of 15 minutes resets the count: three, then that gap.
REFUSED_PAUSES_S = (15.0, 60.0, 960.0)


@dataclass(frozen=True)
class _Refusal:
    """Vault's no to one login, kept so that the same one is not sent again too soon."""

    login: str  # digest of role, mount and SecretID
    error: errors.Rejected
    again: float  # Clock.now()
    count: int


class Login:
    def __init__(self, secret_ids: SecretIds, clock: Clock) -> None:
        self._secret_ids = secret_ids
        self._clock = clock
        self._last = -RELOGIN_S
        self._refusal: Optional[_Refusal] = None

    def is_recent(self) -> bool:
        """Another one now would bring no other policies."""
        return self._clock.now() - self._last < RELOGIN_S

    def login(self, auth: AppRole, vault: Vault) -> VaultToken:
        """Reads the SecretID anew. Raises what SecretIds and the port raise."""
        secret_id = self._secret_ids.read(auth, vault)
        login = identity.fingerprint(auth.role_id, auth.mount_path, secret_id.reveal())
        last = self._refusal if self._refusal and self._refusal.login == login else None
        if last and self._clock.now() < last.again:
            raise errors.Rejected(last.error.message, remedy=last.error.remedy)
        try:
            token = vault.login(auth, secret_id)
        except errors.Rejected as e:
            count = last.count + 1 if last else 0
            pause = REFUSED_PAUSES_S[min(count, len(REFUSED_PAUSES_S) - 1)]
            self._refusal = _Refusal(login, e, self._clock.now() + pause, count)
            raise
        self._refusal = None
        self._last = self._clock.now()
        return token
