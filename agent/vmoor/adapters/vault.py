"""Vault and OpenBao by hvac, which is known here only.

hvac's Client reads VAULT_TOKEN, VAULT_ADDR and ~/.vault-token; its adapter, used here, reads
nothing. It quotes what Vault says, never what was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import hvac.adapters
from hvac import exceptions
from hvac.api.auth_methods import AppRole as AppRoleApi
from hvac.api.auth_methods import Token as TokenApi
from hvac.api.system_backend import Wrapping as WrappingApi

from vmoor import errors
from vmoor.adapters import http
from vmoor.config.settings import AppRole, VaultSettings
from vmoor.model.credential import claims
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret
from vmoor.ports import Clock, Minted

DEADLINE_S = 10.0  # for one operation, whatever number of addresses is tried

_UNAUTHORIZED, _FORBIDDEN, _MISSING, _BROKEN = 401, 403, 404, 500
_STATUS = {
    exceptions.InvalidRequest: 400,
    exceptions.Unauthorized: _UNAUTHORIZED,
    exceptions.Forbidden: _FORBIDDEN,
    exceptions.InvalidPath: _MISSING,
    exceptions.InternalServerError: _BROKEN,
}


class _RefusedError(Exception):
    """Vault's no, before it is known what it means. Never leaves this module."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status} {words}")
        self.status = status
        self.words = words


class HvacVault:
    def __init__(self, settings: VaultSettings, clock: Clock) -> None:
        self._namespace = settings.namespace or None
        self._clock = clock
        self._servers = http.Servers(settings.addresses)
        self._session = http.Session(settings.ca_cert, "vault.ca_cert").for_hvac()

    def close(self) -> None:
        self._session.close()

    def login(self, auth: AppRole, secret_id: Secret) -> VaultToken:
        """Raises Rejected when the role or the SecretID is wrong.

        Beware: five such logins within 15 minutes lock the role, and with it the whole fleet,
        for 15 minutes, unless its mount has user_lockout disabled (Vault 1.13, OpenBao).
        """
        mount = auth.mount_path.strip("/")
        began = self._clock.wall()

        def call(adapter: Any) -> Any:
            return AppRoleApi(adapter).login(
                auth.role_id,
                secret_id.reveal(),
                use_token=False,
                mount_point=mount.removeprefix("auth/"),
            )

        try:
            return _token(self._ask(call), began)
        except _RefusedError as e:
            raise _login_error(e, auth, mount) from None

    def renew(self, token: VaultToken) -> VaultToken:
        began = self._clock.wall()
        what = "update auth/token/renew-self"
        try:
            answer = self._ask_as(token, what, lambda adapter: TokenApi(adapter).renew_self())
        except _RefusedError as e:
            raise _plain("cannot renew the vault token", e) from None
        return _token(answer, began, value=token.value)

    def wrapping_path(self, wrapping_token: Secret) -> str:
        def call(adapter: Any) -> Any:
            return adapter.post("/v1/sys/wrapping/lookup", json={"token": wrapping_token.reveal()})

        try:
            return str(_field(self._ask(call), "creation_path"))
        except _RefusedError as e:
            raise _plain("cannot look up the wrapping token", e) from None

    def unwrap_secret_id(self, wrapping_token: Secret) -> Secret:
        # One address, one try: after a lost answer the token may be spent.
        try:
            answer = self._call(
                self._servers.current,
                DEADLINE_S,
                wrapping_token.reveal(),
                lambda adapter: WrappingApi(adapter).unwrap(),
            )
        except _RefusedError as e:
            raise _plain("cannot unwrap the wrapping token", e) from None
        return Secret(str(_field(answer, "secret_id")))

    def read_kv(self, token: VaultToken, mount: str, path: str) -> Mapping[str, Any]:
        mount, path = mount.strip("/"), path.strip("/")
        ways = {"2": f"{mount}/data/{path}", "1": f"{mount}/{path}"}
        version = self._kv_version(token, mount, path)
        refusals = []
        for way in [ways[version]] if version in ways else list(ways.values()):
            try:
                answer = self._ask(_read(way), token.value.reveal())
            except _RefusedError as e:
                refusals.append((way, e))
                continue
            content = answer.get("data") or {}
            if way == ways["2"]:
                content = content.get("data")
            return content if isinstance(content, dict) else {}
        # Without a version: a denied v2 path says more than a v1 path that is not there.
        way, refusal = min(refusals, key=lambda r: r[1].status != _FORBIDDEN)
        raise self._read_error(token, f"{mount}/{path}", way, refusal)

    def write_kv(
        self, token: VaultToken, mount: str, path: str, content: Mapping[str, Any]
    ) -> None:
        """Replace a KV v2 or v1 secret; for the owner of the mesh, an agent never writes."""
        mount, path = mount.strip("/"), path.strip("/")
        version = self._kv_version(token, mount, path)
        if not version:
            raise errors.Forbidden(
                f"cannot write {mount}/{path}: no KV engine at {mount}/, or no right to it",
                remedy=f"vault secrets enable -path={mount} -version=2 kv, or another token",
            )
        v2 = version == "2"
        way = f"{mount}/data/{path}" if v2 else f"{mount}/{path}"
        body = {"data": content} if v2 else content

        def call(adapter: Any) -> Any:
            adapter.post(f"/v1/{way}", json=body)  # v1 answers 204, with nothing
            return {}

        try:
            self._ask_as(token, f"update {way}", call)
        except _RefusedError as e:
            raise errors.Rejected(f"cannot write {way}: {e.status} {e.words}") from None

    def mint(
        self, token: VaultToken, mount: str, role: str, namespace: str, audience: str
    ) -> Minted:
        """`audience` "" = the API server's own. Raises Rejected with the engine's sentence."""
        path = f"{mount.strip('/')}/creds/{role}"
        body = {"kubernetes_namespace": namespace, **({"audiences": audience} if audience else {})}
        began = self._clock.wall()
        try:
            answer = self._ask_as(
                token,
                f"update {path}",
                lambda adapter: adapter.post(f"/v1/{path}", json=body),
                remedy=_policy_remedy(role, namespace),
            )
        except _RefusedError as e:
            raise errors.Rejected(
                f"cannot get a token from {path}: {e.status} {e.words}",
                remedy=f"check Vault's role {path} and the namespace {namespace}"
                " (vmoor admin manifests)",
            ) from None
        value = Secret(str(_field(answer, "service_account_token")))
        inside = claims(value)
        try:
            # By our own clock from now: the issuer's may differ.
            life = float(inside["exp"]) - float(inside["iat"])
        except (KeyError, TypeError, ValueError):
            raise errors.Rejected(
                f"cannot use the token from {path}: it has no lifetime"
            ) from None
        return Minted(value, began, began + life)

    def _kv_version(self, token: VaultToken, mount: str, path: str) -> str:
        """An empty one when it can't be told: some policies hide it."""
        try:
            way = f"sys/internal/ui/mounts/{mount}/{path}"
            answer = self._ask(_read(way), token.value.reveal())
        except _RefusedError:
            return ""
        options = (answer.get("data") or {}).get("options") or {}
        return str(options.get("version", "1"))

    def _read_error(
        self, token: VaultToken, name: str, way: str, refusal: _RefusedError
    ) -> errors.VmoorError:
        if refusal.status == _FORBIDDEN:
            return self._forbidden(
                token, f"read {way}", _policy_remedy("SERVICE-ACCOUNT", "NAMESPACE", name)
            )
        if refusal.status == _MISSING:
            return errors.Rejected(
                f"cannot read {name}: there is no such secret",
                remedy="vmoor admin publish, or correct `mesh`",
            )
        return _plain(f"cannot read {name}", refusal)

    def _ask_as(
        self, token: VaultToken, what: str, call: Callable[[Any], Any], *, remedy: str = ""
    ) -> Any:
        try:
            return self._ask(call, token.value.reveal())
        except _RefusedError as e:
            if e.status in (_UNAUTHORIZED, _FORBIDDEN):
                raise self._forbidden(token, what, remedy) from None
            raise

    def _forbidden(self, token: VaultToken, what: str, remedy: str) -> errors.VmoorError:
        """Vault says 403 to a bad token and to a missing right alike: look which it is."""
        try:
            self._ask(_read("auth/token/lookup-self"), token.value.reveal())
        except _RefusedError as e:
            if e.status == _BROKEN:
                return _plain(f"cannot {what}", e)
            return errors.Unauthenticated(
                f"cannot {what}: vault knows the token no more", generation=0
            )
        return errors.Forbidden(f"403 on {what}: no policy allows it", remedy=remedy)

    def _ask(self, call: Callable[[Any], Any], token: str = "") -> Any:
        return self._servers.ask(
            lambda url, seconds: self._call(url, seconds, token, call), DEADLINE_S
        )

    def _call(self, url: str, seconds: float, token: str, call: Callable[[Any], Any]) -> Any:
        adapter = hvac.adapters.JSONAdapter(
            base_uri=url,
            token=token or None,
            timeout=seconds,
            session=self._session,
            namespace=self._namespace,
            allow_redirects=False,
        )
        try:
            answer = call(adapter)
        except exceptions.VaultError as e:
            raise _translated(url, e) from None
        if not isinstance(answer, dict):
            raise errors.Unavailable(f"cannot use the answer of vault at {url}: not JSON")
        return answer


def _translated(url: str, error: exceptions.VaultError) -> Exception:
    words = errors.quoted(", ".join(error.errors or [])) or "no reason given"
    status = _STATUS.get(type(error))
    if status is not None:
        return _RefusedError(status, words)
    if isinstance(error, exceptions.RateLimitExceeded):
        return errors.Unavailable(f"vault at {url} is overloaded: {words}")
    if "sealed" in words:
        return errors.Unavailable(f"vault at {url} is sealed", remedy="unseal it")
    if isinstance(error, exceptions.VaultNotInitialized):
        return errors.Unavailable(f"vault at {url} is not initialized")
    return errors.Unavailable(f"vault at {url} is unavailable: {words}")


def _read(path: str) -> Callable[[Any], Any]:
    return lambda adapter: adapter.get(f"/v1/{path}")


def _token(answer: Any, began: float, value: Secret = Secret("")) -> VaultToken:  # noqa: B008
    auth = answer.get("auth") or {}
    try:
        return VaultToken(
            value=value or Secret(auth["client_token"]),
            issued=began,
            expires=began + float(auth["lease_duration"]),
            renewable=bool(auth.get("renewable")),
            policies=tuple(auth.get("token_policies") or auth.get("policies") or ()),
        )
    except (KeyError, TypeError, ValueError):
        raise errors.Unavailable("cannot use vault's answer: it lacks a token") from None


def _field(answer: Any, name: str) -> Any:
    content = answer.get("data") or {}
    if not content.get(name):
        raise errors.Rejected(f"cannot use vault's answer: it lacks {name}")
    return content[name]


def _login_error(refusal: _RefusedError, auth: AppRole, mount: str) -> errors.VmoorError:
    told = f"cannot log in by approle {auth.role_id}"
    if refusal.status == _FORBIDDEN:
        return errors.Forbidden(
            f"{told}: {refusal.status} {refusal.words}",
            remedy=f"is approle enabled at {mount}? Vault also locks a role for 15 minutes after"
            " 5 wrong SecretIDs; it opens by itself",
        )
    return _plain(
        told,
        refusal,
        f"put a new SecretID into {auth.secret_id_file_path}, or correct"
        " vault.auth.role_id; no restart needed",
    )


def _plain(told: str, refusal: _RefusedError, remedy: str = "") -> errors.VmoorError:
    words = f"{told}: {refusal.status} {refusal.words}"
    if refusal.status == _BROKEN:
        return errors.Unavailable(words)
    return errors.Rejected(words, remedy=remedy)


def _policy_remedy(role: str, namespace: str, mesh: str = "MOUNT/PATH") -> str:
    account = role.removesuffix("-vmoor")
    return (
        f"in Vault: vmoor admin vault-policy --role {account} --namespace {namespace}"
        f" --mesh {mesh}"
        f" | vault policy write vmoor-{account} -"
    )
