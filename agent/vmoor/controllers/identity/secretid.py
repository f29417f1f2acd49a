"""The SecretID: out of its file, out of its wrapping, told when it is neither.

Never: an unwrap sent twice for one token, or a token sent that was refused before.
"""

from __future__ import annotations

from typing import Optional

from vmoor import errors
from vmoor.config.settings import AppRole
from vmoor.model import wrapping
from vmoor.model.secret import Secret
from vmoor.ports import Files, Vault

LONGEST = 4096  # characters; a SecretID has 36


class NoSecretIdError(errors.LocalFault):
    """The file is not there (yet)."""


class SecretIds:
    """The SecretID, read anew for each login, out of its wrapping where it has one."""

    def __init__(self, files: Files, store: str) -> None:
        self._files = files
        self._store = store
        self._refused: tuple[str, str] = ("", "")  # digest of the token, and why
        self._unsaved: Optional[wrapping.Wrapped] = None  # unwrapped, but the disk is full

    def read(self, auth: AppRole, vault: Vault) -> Secret:
        content = self._content(auth.secret_id_file_path)
        if auth.secret_id_response_wrapping_path:
            return self._unwrapped(content, auth, vault)
        if content is None:
            raise _missing(auth)
        return content

    def _content(self, path: str) -> Optional[Secret]:
        try:
            content = self._files.read(path)
        except errors.LocalFault as e:
            raise errors.LocalFault(
                e.message, remedy=f"chown root:vmoor {path} && chmod 0640 {path}"
            ) from None
        text = (content or b"").decode("ascii", "replace").strip()
        if not text:
            return None
        if len(text) > LONGEST or not text.isascii() or len(text.split()) > 1:
            raise errors.LocalFault(
                f"cannot use {path}: it holds more than one word",
                remedy="write only the SecretID, or the wrapping token, into it",
            )
        return Secret(text)

    def _unwrapped(self, token: Optional[Secret], auth: AppRole, vault: Vault) -> Secret:
        stored = self._unsaved or wrapping.decode(self._files.read(self._store))
        decision = wrapping.decide(token, stored, self._refused[0])
        if decision is wrapping.Decision.USE:
            self._save()
            return stored.secret_id
        if token is None:
            raise _missing(auth)
        if decision is wrapping.Decision.REFUSED:
            raise _stolen(self._refused[1], auth)
        if decision is wrapping.Decision.INTERRUPTED:
            raise errors.Rejected(
                f"cannot use the wrapping token in {auth.secret_id_file_path}: its unwrapping was"
                " interrupted and can't be repeated",
                remedy=f"put a new wrapping token into {auth.secret_id_file_path};"
                " no restart needed",
            )
        self._look_up(token, auth, vault)
        name = wrapping.digest(token)
        self._write(wrapping.Wrapped(name, wrapping.UNWRAPPING))
        try:
            secret_id = vault.unwrap_secret_id(token)
        except errors.Rejected as e:
            raise self._spent(token, e, auth) from None
        self._unsaved = wrapping.Wrapped(name, wrapping.USED, secret_id)
        self._save()
        return secret_id

    def _save(self) -> None:
        if self._unsaved is not None:
            self._write(self._unsaved)
            self._unsaved = None

    def _look_up(self, token: Secret, auth: AppRole, vault: Vault) -> None:
        try:
            made_by = vault.wrapping_path(token).strip("/")
        except errors.Rejected as e:
            raise self._spent(token, e, auth) from None
        wanted = auth.secret_id_response_wrapping_path.strip("/")
        if made_by != wanted:
            why = f"it was made by {errors.quoted(made_by)}, not by {wanted}"
            raise self._refuse(token, why, auth)

    def _write(self, wrapped: wrapping.Wrapped) -> None:
        self._files.write(self._store, wrapping.encode(wrapped), 0o600, durable=True)

    def _spent(self, token: Secret, error: errors.Rejected, auth: AppRole) -> errors.Rejected:
        why = error.message.partition(": ")[2]
        return self._refuse(token, f"{why}: someone else unwrapped it, or it has expired", auth)

    def _refuse(self, token: Secret, why: str, auth: AppRole) -> errors.Rejected:
        self._refused = (wrapping.digest(token), why)
        return _stolen(why, auth)


def _missing(auth: AppRole) -> errors.LocalFault:
    return NoSecretIdError(
        f"cannot log in to vault: there is no {auth.secret_id_file_path}",
        remedy=f"write the SecretID into {auth.secret_id_file_path}; no restart needed",
    )


def _stolen(why: str, auth: AppRole) -> errors.Rejected:
    return errors.Rejected(
        f"cannot trust the wrapping token in {auth.secret_id_file_path}: {why}",
        remedy="find out who had the token (Vault's audit log), revoke the SecretID, then put a"
        f" new wrapping token into {auth.secret_id_file_path}; no restart needed",
        security=True,
    )
