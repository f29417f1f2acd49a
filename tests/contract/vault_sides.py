"""The fake Vault and the real one, prepared alike, and what a mesh's owner does to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from vmoor.adapters.clock import SystemClock
from vmoor.adapters.vault import HvacVault
from vmoor.config.settings import AppRole, VaultSettings
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret

from tests.fakes.clock import FakeClock
from tests.fakes.vault import FakeVault, KubernetesRole, Role
from tests.rig import inside
from tests.rig.rig import Rig

AUTH = AppRole("shop-web")
PATHS = ("secret/vmoor/", "old/vmoor/", "kubernetes/creds/")
KUBERNETES_ROLES = {
    "web": KubernetesRole("web", ("shop", "void")),
    "web-vmoor": KubernetesRole("web-vmoor", ("shop",)),
    "ghost": KubernetesRole("ghost", ("shop",)),
}


class FakeSide:
    def __init__(self) -> None:
        self.vault: Any = FakeVault(FakeClock())
        self.add_role("shop-web")
        self.allow(PATHS)
        self.vault.kubernetes = dict(KUBERNETES_ROLES)
        self.vault.accounts = {("shop", "web"), ("shop", "web-vmoor")}

    def add_role(self, name: str) -> None:
        self.vault.roles[name] = Role()

    def secret_id(self, role: str = "shop-web") -> Secret:
        return Secret(self.vault.new_secret_id(role))

    def wrapped(self) -> Secret:
        return Secret(self.vault.new_wrapped("shop-web"))

    def revoke_wrapped(self, token: Secret) -> None:
        self.vault.revoke_wrapped(token.reveal())

    def revoke_tokens(self, token: VaultToken) -> None:
        self.vault.revoke_tokens()

    def allow(self, paths: Sequence[str]) -> None:
        self.vault.policies["web"] = set(paths)

    def put(self, mount: str, path: str, content: Mapping[str, Any]) -> None:
        self.vault.kv[(mount, path)] = content

    def seal(self) -> None:
        self.vault.sealed = True

    def unseal(self) -> None:
        self.vault.sealed = False


class InNamespace:
    """The adapter, whose sockets are made inside the rig's network."""

    def __init__(self, rig: Rig, vault: HvacVault) -> None:
        self._rig = rig
        self._vault = vault

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._vault, name)

        def call(*args: Any) -> Any:
            return inside.call(self._rig.network.netns_path, lambda: method(*args))

        return call


class RealSide:
    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._connected: list[HvacVault] = []
        self.vault = self.connect(rig.vault.url)
        self._bao = rig.bao
        self._bao("auth", "enable", "approle")
        self._bao("secrets", "enable", "-path=secret", "-version=2", "kv")
        self._bao("secrets", "enable", "-path=old", "-version=1", "kv")
        self._prepare_kubernetes()
        self.add_role("shop-web")
        self.allow(PATHS)

    def connect(self, *urls: str, ca: Optional[str] = None, namespace: str = "") -> Any:
        ca_file = str(self.rig.vault.ca) if ca is None else ca
        settings = VaultSettings(urls, AUTH, ca_file, namespace)
        self._connected.append(HvacVault(settings, SystemClock()))
        return InNamespace(self.rig, self._connected[-1])

    def close(self) -> None:
        for vault in self._connected:
            vault.close()

    def _prepare_kubernetes(self) -> None:
        rig = self.rig
        rig.kubectl("create", "namespace", "shop")
        for account in ("web", "web-vmoor"):
            rig.kubectl("create", "serviceaccount", "-n", "shop", account)
        self._bao("secrets", "enable", "kubernetes")
        config = {
            "kubernetes_host": rig.kube.url,
            "kubernetes_ca_cert": rig.kube.ca,
            "service_account_jwt": rig.kube.token,
        }
        self._bao("write", "kubernetes/config", "-", input=json.dumps(config))
        for name, role in KUBERNETES_ROLES.items():
            body = {
                "allowed_kubernetes_namespaces": list(role.namespaces),
                "service_account_name": role.service_account,
            }
            self._bao("write", f"kubernetes/roles/{name}", "-", input=json.dumps(body))

    def add_role(self, name: str) -> None:
        self._bao("write", f"auth/approle/role/{name}", f"role_id={name}", "token_policies=web")

    def secret_id(self, role: str = "shop-web") -> Secret:
        path = f"auth/approle/role/{role}/secret-id"
        return Secret(self._bao("write", "-f", "-field=secret_id", path).strip())

    def wrapped(self) -> Secret:
        path = "auth/approle/role/shop-web/secret-id"
        wrapping = ("-wrap-ttl=60s", "-field=wrapping_token")
        return Secret(self._bao("write", "-f", *wrapping, path).strip())

    def revoke_wrapped(self, token: Secret) -> None:
        self._bao("token", "revoke", token.reveal())

    def revoke_tokens(self, token: VaultToken) -> None:
        self._bao("token", "revoke", token.value.reveal())

    def allow(self, paths: Sequence[str]) -> None:
        """As a person writes it: KV v2's data/ and nothing about sys/internal."""
        rules = [path.replace("secret/", "secret/data/") for path in paths]
        policy = "# what the tests allow\n" + "\n".join(
            f'path "{rule}*" {{ capabilities = ["read", "create", "update"] }}' for rule in rules
        )
        self._bao("policy", "write", "web", "-", input=policy)

    def put(self, mount: str, path: str, content: Mapping[str, Any]) -> None:
        self._bao("kv", "put", f"-mount={mount}", path, "-", input=json.dumps(content))

    def seal(self) -> None:
        self.rig.vault.seal()

    def unseal(self) -> None:
        self.rig.vault.unseal()
