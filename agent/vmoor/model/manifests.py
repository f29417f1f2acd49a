"""What the mesh's owner creates in Kubernetes for one service account, as objects.

Two accounts: the mesh identity has no rights, the one for the API has those of the agent and no
more. RBAC can't say "your own entries only", so the admission policy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from vmoor.model import admission

Manifest = dict[str, Any]

PART_OF = {"app.kubernetes.io/part-of": "vmoor"}
RBAC = "rbac.authorization.k8s.io"


def manifests(
    namespace: str,
    account: str,
    minter: tuple[str, str],
    *,
    namespaces: bool = True,
    selectors: bool = False,
) -> Sequence[Manifest]:
    """`minter`: namespace and name of the ServiceAccount that Vault mints tokens with.

    `selectors`: agents may also read what selects their entries.
    """
    rules = [*AGENT, *SELECTORS] if selectors else AGENT
    api, tokens = f"{account}-vmoor", f"{account}-vmoor-tokens"
    names = sorted({namespace, minter[0]}) if namespaces else []
    return [
        *(_object("v1", "Namespace", name) for name in names),
        _object("v1", "ServiceAccount", account, namespace),
        # Nothing in the cluster runs as it: its tokens are minted for VMs.
        _account(api, namespace),
        _object(f"{RBAC}/v1", "Role", api, namespace, rules=rules),
        _binding(api, namespace, (namespace, api)),
        _account(minter[1], minter[0]),
        _object(f"{RBAC}/v1", "Role", tokens, namespace, rules=_minting([account, api])),
        _binding(tokens, namespace, minter),
        *admission.policy(),
    ]


def _rule(group: str, resource: str, *verbs: str) -> Manifest:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


AGENT = [
    _rule("coordination.k8s.io", "leases",
          "get", "list", "create", "update", "delete"),
    _rule("networking.istio.io", "workloadentries",
          "get", "list", "watch", "create", "patch", "delete"),
    _rule("networking.istio.io", "workloadentries/status", "patch"),
    _rule("", "events", "create", "patch"),
]  # fmt: skip
SELECTORS = [
    _rule("networking.istio.io", "serviceentries", "get", "list"),
    _rule("", "services", "get", "list"),
]


def _minting(accounts: Sequence[str]) -> Sequence[Manifest]:
    rule = _rule("", "serviceaccounts/token", "create")
    return [{**rule, "resourceNames": list(accounts)}]


def _account(name: str, namespace: str) -> Manifest:
    return _object("v1", "ServiceAccount", name, namespace, automountServiceAccountToken=False)


def _binding(role: str, namespace: str, account: tuple[str, str]) -> Manifest:
    subject = {"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}
    return _object(
        f"{RBAC}/v1",
        "RoleBinding",
        role,
        namespace,
        roleRef={"apiGroup": RBAC, "kind": "Role", "name": role},
        subjects=[subject],
    )


def _object(
    version: str, kind: str, name: str, namespace: Optional[str] = None, **more: Any
) -> Manifest:
    meta: Manifest = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": {**meta, "labels": PART_OF}, **more}
