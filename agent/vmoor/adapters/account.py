"""The API server and the token of a process that is no VM: from files, as a pod has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from vmoor.adapters import http
from vmoor.adapters.kube import Access
from vmoor.errors import LocalFault
from vmoor.model.secret import Secret

# Where kubelet mounts a pod's ServiceAccount, and renews the token.
MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
LIMIT = 64 << 10  # bytes of a token


def in_cluster() -> str:
    """The API server of the cluster that this process is a pod of, "" = of none."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}" if host else ""


def of_files(
    server: str, ca: str, token_file: str, *, account: str, remedy: str
) -> Callable[[], Access]:
    """The token is read anew for each request, the CA bundle for each connection."""

    def access() -> Access:
        return Access(
            (server,), ca, _token(token_file), "", account, remedy, asker="this machine",
            server_name="--server", ca_name="--ca", token_remedy=f"write a new one: {token_file}",
        )  # fmt: skip

    return access


def unusable(ca: str, token_file: str) -> Sequence[LocalFault]:
    """What is wrong with either file now."""
    found = []
    for look in (http.Session(ca, "--ca").trusted, lambda: _token(token_file)):
        try:
            look()
        except LocalFault as e:
            found.append(e)
    return found


def _token(path: str) -> Secret:
    try:
        with Path(path).open("rb") as file:
            text = file.read(LIMIT).decode().strip()
    except (OSError, ValueError) as e:
        reason = (getattr(e, "strerror", None) or "not text").lower()
        raise LocalFault(
            f"cannot read the token {path}: {reason}",
            remedy=f"--token-file must hold a token, readable by user {http.user()}",
        ) from None
    if not text:
        raise LocalFault(f"cannot use the token {path}: it is empty", remedy="write it anew")
    return Secret(text)
