"""Who we are: the Vault login, the mesh facts, the two Kubernetes tokens, and their renewal.

Everything is renewed at half its life; what is held stays in use until its successor works, so
no failure of Vault takes away a credential that is still good. Never: a secret in a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional, TypeVar

from vmoor import errors
from vmoor.config.facts import facts_from
from vmoor.config.settings import Settings, VaultSettings
from vmoor.controllers.identity.login import Login
from vmoor.controllers.identity.secretid import NoSecretIdError, SecretIds
from vmoor.model import identity
from vmoor.model.credential import JITTER, Credential, Credentials, claims, subject_mismatch
from vmoor.model.facts import ISTIO_AUDIENCE, MeshFacts
from vmoor.model.identity import Held, IdentityState, VaultToken
from vmoor.model.secret import Secret
from vmoor.ports import Clock, Files, Vault
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Settled

log = logging.getLogger(__name__)

T = TypeVar("T")

FACTS_S = 300.0  # a change in KV reaches the fleet within this
# Between two looks at facts that were refused, or that others doubt (one cause, many doubts).
FACTS_RETRY_S = 30.0
SECRET_ID_POLL_S = 2.0  # while there is none; a stat is cheap
# A refused token that is younger than this is no fault of the token: no use in fetching more.
REFRESH_S = 15.0


@dataclass(frozen=True)
class _Kept:
    """Credentials of an earlier configuration or process, with their own facts."""

    held: Held
    facts: Optional[MeshFacts]


class Identity:
    def __init__(  # noqa: PLR0913 - cells and ports, each named
        self,
        *,
        settings: Cell[Optional[Settings]],
        credentials: Cell[Optional[Credentials]],
        state: Cell[IdentityState],
        bell: Bell,
        connect: Callable[[VaultSettings], Vault],
        files: Files,
        clock: Clock,
        random: Callable[[], float],
        runtime_dir: str = "/run/vmoor",
        state_dir: str = "/var/lib/vmoor",
    ) -> None:
        """Publishes what is still good from before a restart; raises nothing, asks nobody."""
        self._settings = settings
        self._credentials = credentials
        self._state = state
        self._bell = bell
        self._connect = connect
        self._files = files
        self._clock = clock
        self._random = random
        self._store = f"{runtime_dir}/credentials.json"
        self._logins = Login(SecretIds(files, f"{state_dir}/secret-id.json"), clock)
        self._connected: Optional[tuple[VaultSettings, Vault]] = None
        self._held = Held()
        self._stored = Held()
        self._before: Optional[_Kept] = None  # in use until `_held` can be
        self._due: dict[str, tuple[float, float]] = {}  # Unix seconds: issued, to be renewed
        self._facts: Optional[MeshFacts] = None
        self._facts_due = 0.0  # Clock.now(), as all that concerns the facts
        self._facts_read = -FACTS_RETRY_S
        self._facts_failure: Optional[errors.VmoorError] = None  # stands until the next read
        self._refused: frozenset[int] = frozenset()
        configured = settings.get()
        if configured is not None:
            self._adopt(configured)

    def refuse(self, error: errors.Unauthenticated) -> None:
        """The API server refused the credential of that generation. Any thread may call."""
        if error.generation not in self._refused:
            self._refused |= {error.generation}
            self._bell.ring()

    def recheck_facts(self) -> None:
        """A peer's certificate was refused: KV may hold a new CA. Any thread may call."""
        due = self._facts_read + FACTS_RETRY_S
        if due < self._facts_due:
            self._facts_due = due
            self._bell.ring()

    def reconcile(self) -> Settled:
        settings = self._settings.get()
        if settings is None:
            return Settled("waiting for the configuration", again=30, waiting=True)
        self._adopt(settings)
        failure = self._keep(settings)
        self._publish(settings)
        if failure is None:
            return Settled(f"logged in by approle {settings.vault.auth.role_id}", self._again())
        if isinstance(failure, NoSecretIdError) and self._credentials.get() is None:
            path = settings.vault.auth.secret_id_file_path
            return Settled(f"waiting for {path}", SECRET_ID_POLL_S, waiting=True)
        raise failure

    def _keep(self, settings: Settings) -> Optional[errors.VmoorError]:
        """The steps, each stored when it is done: a later one may hang in a slow Vault."""
        failure: Optional[errors.VmoorError] = None
        unsaved: Optional[errors.VmoorError] = None
        for step in (self._keep_login, self._keep_facts, self._keep_api, self._keep_istio):
            failed = _tried(partial(step, settings))
            unsaved = _tried(self._keep_over_restarts)
            failure = failure or failed
            if isinstance(failed, errors.Unavailable) or (failed and not self._vault_token()):
                break
        return failure or unsaved

    # -- the four steps ------------------------------------------------------------------------

    def _keep_login(self, settings: Settings) -> None:
        token = self._vault_token()
        if token is None:
            self._login(settings)
            return
        if not self._is_due("vault"):
            return
        if token.renewable and self._renewed(settings, token):
            return
        self._login(settings)

    def _keep_facts(self, settings: Settings) -> None:
        mesh = settings.mesh
        if mesh.inline is not None:
            self._facts = _overridden(mesh.inline, settings)
            return
        if self._facts is not None and self._clock.now() < self._facts_due:
            # The overrides may be new.
            self._facts = _overridden(_parsed(self._held.facts, settings), settings)
            if self._facts_failure is not None:
                raise self._facts_failure.with_traceback(None)
            return
        self._facts_read = self._clock.now()
        try:
            self._read_facts(settings)
        except (errors.Rejected, errors.Forbidden) as e:
            if self._facts is not None:
                self._facts_failure = e
                self._facts_due = self._clock.now() + FACTS_RETRY_S
            raise

    def _read_facts(self, settings: Settings) -> None:
        mesh = settings.mesh
        read = self._as_ourselves(
            settings,
            lambda vault, token: vault.read_kv(token, mesh.kv_mount, mesh.kv_path),
        )
        self._facts = _overridden(_parsed(read, settings), settings)
        self._facts_failure = None
        self._facts_due = self._clock.now() + FACTS_S
        self._held = replace(self._held, facts=read)

    def _keep_api(self, settings: Settings) -> None:
        if self._facts is not None:
            account = settings.workload.api_account
            role = self._facts.kubernetes.vault_role or account
            api = self._minted(settings, self._held.api, "api", role, account, "")
            self._held = replace(self._held, api=api)

    def _keep_istio(self, settings: Settings) -> None:
        if self._facts is not None:
            account = settings.workload.service_account
            role = self._facts.istio.vault_role or account
            istio = self._minted(
                settings, self._held.istio, "istio", role, account, ISTIO_AUDIENCE
            )
            self._held = replace(self._held, istio=istio)

    # -- Vault ---------------------------------------------------------------------------------

    def _vault(self, settings: Settings) -> Vault:
        if self._connected is None or self._connected[0] != settings.vault:
            if self._connected is not None:
                self._connected[1].close()
            self._connected = (settings.vault, self._connect(settings.vault))
        return self._connected[1]

    def _vault_token(self) -> Optional[VaultToken]:
        token = self._held.vault
        return token if token is not None and token.good(self._clock.wall()) else None

    def _as_ourselves(self, settings: Settings, call: Callable[[Vault, VaultToken], T]) -> T:
        """`call` with the Vault token; once more with a new one where that may change things."""
        token = self._vault_token() or self._login(settings)
        vault = self._vault(settings)
        try:
            return call(vault, token)
        except errors.Unauthenticated:
            self._held = replace(self._held, vault=None)
            return call(vault, self._login(settings))
        except errors.Forbidden:
            if self._logins.is_recent():
                raise
            try:
                token = self._login(settings)
            except errors.VmoorError as e:
                log.info("identity: no new login for new policies: %s", e.message)
            else:
                return call(vault, token)
            raise

    def _login(self, settings: Settings) -> VaultToken:
        token = self._logins.login(settings.vault.auth, self._vault(settings))
        self._take_vault(token, life=token.expires - token.issued)
        return token

    def _renewed(self, settings: Settings, token: VaultToken) -> bool:
        """False when it could not be, or only for so little that a new login is due."""
        try:
            longer = self._vault(settings).renew(token)
        except (errors.Unauthenticated, errors.Forbidden, errors.Rejected) as e:
            log.info("identity: %s; logging in anew", e.message)
            return False
        self._take_vault(longer, life=self._held.vault_life)
        enough = longer.expires - longer.issued >= self._held.vault_life / 2
        if not enough:
            self._due["vault"] = (0.0, 0.0)  # until a login succeeds
        return enough

    def _take_vault(self, token: VaultToken, *, life: float) -> None:
        self._held = replace(self._held, vault=token, vault_life=life)
        self._due["vault"] = (token.issued, self._half_life(token.issued, token.expires))

    def _minted(
        self,
        settings: Settings,
        old: Optional[Credential],
        name: str,
        role: str,
        account: str,
        audience: str,
    ) -> Credential:
        assert self._facts is not None  # noqa: S101 - the callers looked
        mount = self._facts.kubernetes.vault_mount
        source = f"{mount}/creds/{role}"
        if old and old.source == source:
            if old.generation in self._refused:
                self._allow_refresh(old)
            elif not self._is_due(name):
                return old
        namespace = settings.workload.namespace
        minted = self._as_ourselves(
            settings, lambda vault, token: vault.mint(token, mount, role, namespace, audience)
        )
        wrong = subject_mismatch(minted.value, namespace, account) or _audience_mismatch(
            minted.value, audience
        )
        if wrong:
            raise errors.Rejected(
                f"cannot use the token from {source}: {wrong}",
                remedy=f"correct Vault's role {role} (service_account_name {account}),"
                " or vault_role in the mesh facts",
            )
        generation = self._held.generation + 1
        self._held = replace(self._held, generation=generation)
        new = Credential(minted.value, minted.issued, minted.expires, generation, source)
        self._due[name] = (new.issued, new.renew_at(self._random()))
        return new

    # -- time ----------------------------------------------------------------------------------

    def _is_due(self, name: str) -> bool:
        """Also when the clock was set back: then nobody knows what the token's end means."""
        issued, renewal = self._due.get(name, (0.0, 0.0))
        return not issued <= self._clock.wall() < renewal

    def _allow_refresh(self, refused: Credential) -> None:
        """One fresh token at once; when that one is refused too, at our own pace."""
        if 0 <= self._clock.wall() - refused.issued < REFRESH_S:
            raise errors.Rejected(
                f"cannot use a token fresh from {refused.source}: the API server refuses it",
                remedy="kubernetes.server in the mesh facts and Vault's Kubernetes mount must be"
                " of the same cluster",
            )

    def _half_life(self, issued: float, expires: float) -> float:
        return issued + (expires - issued) / 2 * (1 + JITTER * (2 * self._random() - 1))

    def _again(self) -> float:
        soonest = min(renewal for _, renewal in self._due.values()) - self._clock.wall()
        if self._facts_due:
            soonest = min(soonest, self._facts_due - self._clock.now())
        return max(1.0, min(soonest, FACTS_S))

    # -- what others see, and what a restart finds ---------------------------------------------

    def _publish(self, settings: Settings) -> None:
        """An expired istio token takes nobody's API access away: only the API's own end does.

        A refused API token stays until its successor works: the refusal may be the server's
        passing fault, and Vault may be down.
        """
        usable, shown = self._usable(_Kept(self._held, self._facts)), self._held
        if usable is None and self._before is not None:
            usable, shown = self._usable(self._before), self._before.held
        if usable is None or shown is self._held:
            self._before, shown = None, self._held
        self._credentials.set(usable)
        vault = self._held.vault
        self._state.set(
            IdentityState(
                role=settings.vault.auth.role_id,
                vault_expires=vault.expires if vault else 0.0,
                api_expires=shown.api.expires if shown.api else 0.0,
                istio_expires=shown.istio.expires if shown.istio else 0.0,
                policies=vault.policies if vault else (),
            )
        )

    def _usable(self, kept: _Kept) -> Optional[Credentials]:
        held, facts = kept.held, kept.facts
        if facts and held.api and held.istio and held.api.good(self._clock.wall()):
            return Credentials(facts, held.api, held.istio)
        return None

    def _keep_over_restarts(self) -> None:
        if self._before is not None and self._usable(_Kept(self._held, self._facts)) is None:
            return
        if self._held != self._stored:
            self._files.write(self._store, identity.encode(self._held), 0o600)
            self._stored = self._held

    def _adopt(self, settings: Settings) -> None:
        """For a configuration that is not the held one's: what was kept for it, or nothing.

        What the same workload can still use stays published, and stored, until the new
        configuration has brought its own: a slip of the pen takes no credential away.
        """
        mark, workload = _fingerprint(settings), _workload(settings)
        if mark == self._held.fingerprint:
            return
        kept = self._kept(settings, mark)
        generation = max(kept.held.generation, self._held.generation)
        self._before, self._due = None, {}
        self._facts_due, self._facts_failure = 0.0, None
        if kept.held.fingerprint == mark:
            self._resume(kept, generation)
        else:
            self._held, self._facts = Held(mark, workload, generation=generation), None
            self._before = kept if kept.held.workload == workload else None
        self._publish(settings)
        if self._before is not None:
            log.info("identity: the credentials in use stay until the new configuration has some")

    def _kept(self, settings: Settings, mark: str) -> _Kept:
        """The newest that was of use: in memory, or after the start, on the disk."""
        if not self._held.fingerprint:
            return self._from_store(settings, mark)
        held = _Kept(self._held, self._facts)
        return held if self._before is None or self._usable(held) else self._before

    def _from_store(self, settings: Settings, mark: str) -> _Kept:
        try:
            held = identity.decode(self._files.read(self._store))
            inline = settings.mesh.inline if held.fingerprint == mark else None
            facts = inline or (_parsed(held.facts, settings) if held.facts else None)
        except errors.VmoorError as e:
            log.warning("identity: cannot use what was kept before a restart: %s", e.message)
            return _Kept(Held(), None)
        self._stored = held
        return _Kept(held, _overridden(facts, settings) if facts else None)

    def _resume(self, kept: _Kept, generation: int) -> None:
        self._held, self._facts = replace(kept.held, generation=generation), kept.facts
        vault = kept.held.vault
        if vault:
            self._due["vault"] = (vault.issued, self._half_life(vault.issued, vault.expires))
        for name, token in (("api", kept.held.api), ("istio", kept.held.istio)):
            if token:
                self._due[name] = (token.issued, token.renew_at(self._random()))


def _tried(act: Callable[[], None]) -> Optional[errors.VmoorError]:
    try:
        act()
    except errors.VmoorError as e:
        return e
    return None


def _fingerprint(settings: Settings) -> str:
    """Of what makes held credentials this configuration's own. Addresses may change."""
    mesh, auth, workload = settings.mesh, settings.vault.auth, settings.workload
    return identity.fingerprint(
        settings.vault.namespace,
        (auth.mount_path, auth.role_id),
        (mesh.kv_mount, mesh.kv_path, mesh.inline and mesh.inline.kubernetes),
        (workload.namespace, workload.service_account),
    )


def _workload(settings: Settings) -> str:
    return f"{settings.workload.namespace}/{settings.workload.service_account}"


def _parsed(read: Optional[Mapping[str, Any]], settings: Settings) -> MeshFacts:
    """Raises Rejected: unlike a file of this VM, KV is not to be asked every second."""
    try:
        return facts_from(read or {}, f"{settings.mesh.kv_mount}/{settings.mesh.kv_path}")
    except errors.Misconfigured as e:
        raise errors.Rejected(e.message, remedy=e.remedy) from None


def _overridden(facts: MeshFacts, settings: Settings) -> MeshFacts:
    mesh = settings.mesh
    return replace(
        facts,
        istio=replace(
            facts.istio,
            revision=mesh.revision or facts.istio.revision,
            network=mesh.network or facts.istio.network,
        ),
    )


def _audience_mismatch(token: Secret, audience: str) -> Optional[str]:
    told = claims(token).get("aud")
    audiences: Sequence[Any] = told if isinstance(told, list) else [told]
    if not audience or audience in audiences:
        return None
    return f"it is for {errors.quoted(told)}, not for {audience}"
