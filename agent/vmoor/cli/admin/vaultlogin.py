"""Vault as the operator's own `vault` command would reach it."""

from __future__ import annotations

import os
from pathlib import Path

from vmoor.adapters import clock
from vmoor.adapters.vault import HvacVault
from vmoor.config.settings import AppRole, VaultSettings
from vmoor.errors import LocalFault
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret

TOKEN_FILE = ".vault-token"  # noqa: S105 - where `vault login` keeps it, in the home directory


def vault() -> HvacVault:
    """By VAULT_ADDR, VAULT_CACERT and VAULT_NAMESPACE, or OpenBao's BAO_ names."""
    settings = VaultSettings(
        addresses=(_environment("ADDR") or "https://127.0.0.1:8200",),
        auth=AppRole(role_id=""),
        ca_cert=_environment("CACERT"),
        namespace=_environment("NAMESPACE"),
    )
    return HvacVault(settings, clock.SystemClock())


def token() -> VaultToken:
    """VAULT_TOKEN, else what `vault login` left. Raises LocalFault when there is neither."""
    value = _environment("TOKEN")
    if not value:
        try:
            value = (Path.home() / TOKEN_FILE).read_text().strip()
        except OSError:
            raise LocalFault("cannot find a Vault token", remedy="vault login") from None
    return VaultToken(Secret(value), issued=0, expires=0, renewable=False)


def _environment(name: str) -> str:
    return os.environ.get(f"VAULT_{name}") or os.environ.get(f"BAO_{name}") or ""
