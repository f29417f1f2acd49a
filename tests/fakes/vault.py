"""A small Vault: seal, AppRole with lockout, policies, KV, wrapping, the Kubernetes engine."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from vmoor import errors
from vmoor.config.settings import AppRole
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret
from vmoor.ports import Clock, Minted

LOCKOUT = 5  # refused logins of one role; it opens 15 minutes later
LOCKOUT_S = 900.0


@dataclass
class Role:
    policies: tuple[str, ...] = ("web",)
    ttl: float = 3600.0
    max_ttl: float = 86400.0
    secret_ids: set[str] = field(default_factory=set)
    refused: int = 0
    refused_at: float = 0.0


@dataclass
class _Issued:
    role: str
    policies: tuple[str, ...]
    expires: float
    ends: float  # max TTL


@dataclass
class KubernetesRole:
    service_account: str
    namespaces: tuple[str, ...] = ("shop",)
    ttl: float = 3600.0


class FakeVault:
    """Both the port and the world behind it. Lower-case "admin" methods change the world."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self.calls: list[str] = []
        self.sealed = False
        self.broken: Optional[errors.VmoorError] = None  # raised by every call
        self.roles: dict[str, Role] = {}
        self.policies: dict[str, set[str]] = {}  # name -> path prefixes
        self.kv: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.kubernetes: dict[str, KubernetesRole] = {}
        self.accounts: set[tuple[str, str]] = set()  # (namespace, name) that exist
        self._tokens: dict[str, _Issued] = {}
        self._wrapped: dict[str, tuple[str, str]] = {}  # token -> creation path, SecretID

    # -- the world -------------------------------------------------------------------------

    def new_secret_id(self, role: str) -> str:
        secret_id = f"secret-id-{next(self._numbers)}"
        self.roles[role].secret_ids.add(secret_id)
        return secret_id

    def new_wrapped(self, role: str, path: str = "") -> str:
        token = f"wrapping-{next(self._numbers)}"
        made_by = path or f"auth/approle/role/{role}/secret-id"
        self._wrapped[token] = (made_by, self.new_secret_id(role))
        return token

    def revoke_wrapped(self, token: str) -> None:
        del self._wrapped[token]

    def revoke_tokens(self) -> None:
        self._tokens.clear()

    # -- the port --------------------------------------------------------------------------

    def close(self) -> None:
        self.calls.append("close")

    def login(self, auth: AppRole, secret_id: Secret) -> VaultToken:
        self._enter("login")
        told = f"cannot log in by approle {auth.role_id}"
        role = self.roles.get(auth.role_id)
        if role and role.refused >= LOCKOUT and self._age(role.refused_at) < LOCKOUT_S:
            raise errors.Forbidden(f"{told}: 403 permission denied")
        if role is None or secret_id.reveal() not in role.secret_ids:
            if role:
                reset = self._age(role.refused_at) > LOCKOUT_S
                role.refused = 1 if reset else role.refused + 1
                role.refused_at = self._clock.wall()
            raise errors.Rejected(
                f"{told}: 400 invalid role or secret ID", remedy=auth.secret_id_file_path
            )
        role.refused = 0
        now = self._clock.wall()
        token = f"hvs.{next(self._numbers)}"
        self._tokens[token] = _Issued(
            auth.role_id, role.policies, now + role.ttl, now + role.max_ttl
        )
        return VaultToken(
            Secret(token), now, now + role.ttl, renewable=True, policies=role.policies
        )

    def renew(self, token: VaultToken) -> VaultToken:
        self._enter("renew")
        issued = self._known(token, "update auth/token/renew-self")
        now = self._clock.wall()
        issued.expires = min(now + self.roles[issued.role].ttl, issued.ends)
        return replace(token, issued=now, expires=issued.expires)

    def wrapping_path(self, wrapping_token: Secret) -> str:
        self._enter("wrapping_path")
        if wrapping_token.reveal() not in self._wrapped:
            raise errors.Rejected("cannot look up the wrapping token: 400 not valid")
        return self._wrapped[wrapping_token.reveal()][0]

    def unwrap_secret_id(self, wrapping_token: Secret) -> Secret:
        self._enter("unwrap")
        if wrapping_token.reveal() not in self._wrapped:
            raise errors.Rejected("cannot unwrap the wrapping token: 400 not valid")
        return Secret(self._wrapped.pop(wrapping_token.reveal())[1])

    def read_kv(self, token: VaultToken, mount: str, path: str) -> Mapping[str, Any]:
        self._enter("read_kv")
        self._allowed(token, "read", f"{mount}/{path}")
        if (mount, path) not in self.kv:
            raise errors.Rejected(f"cannot read {mount}/{path}: there is no such secret")
        return self.kv[(mount, path)]

    def mint(
        self, token: VaultToken, mount: str, role: str, namespace: str, audience: str
    ) -> Minted:
        self._enter(f"mint {role}")
        path = f"{mount}/creds/{role}"
        self._allowed(token, "update", path)
        known = self.kubernetes.get(role)
        reason = ""
        if known is None:
            reason = f"role '{role}' does not exist"
        elif namespace not in known.namespaces:
            reason = f"kubernetes_namespace '{namespace}' is not present"
        elif (namespace, known.service_account) not in self.accounts:
            reason = f'serviceaccounts "{known.service_account}" not found'
        if known is None or reason:
            raise errors.Rejected(f"cannot get a token from {path}: {reason}")
        now = self._clock.wall()
        payload = {
            "sub": f"system:serviceaccount:{namespace}:{known.service_account}",
            "aud": [audience or "https://kubernetes.default.svc"],
            "iat": now,
            "exp": now + known.ttl,
            "jti": next(self._numbers),
        }
        text = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
        return Minted(Secret(f"head.{text}.signature"), now, now + known.ttl)

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.broken is not None:
            raise self.broken
        if self.sealed:
            raise errors.Unavailable("vault at https://vault is sealed", remedy="unseal it")

    def _age(self, at: float) -> float:
        return self._clock.wall() - at

    def _known(self, token: VaultToken, what: str) -> _Issued:
        issued = self._tokens.get(token.value.reveal())
        if issued is None or issued.expires <= self._clock.wall():
            raise errors.Unauthenticated(f"cannot {what}: vault knows it no more", generation=0)
        return issued

    def _allowed(self, token: VaultToken, verb: str, path: str) -> None:
        issued = self._known(token, f"{verb} {path}")
        prefixes = {p for name in issued.policies for p in self.policies.get(name, ())}
        if not any(path.startswith(prefix) for prefix in prefixes):
            raise errors.Forbidden(
                f"403 on {verb} {path}: no policy allows it", remedy="vmoor admin vault-policy"
            )
