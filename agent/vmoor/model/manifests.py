"""What the mesh's owner creates in Kubernetes for one service account, as objects.

Two accounts: the mesh identity has no rights, the one for the API has those of the agent and no
more. RBAC can't say "your own entries only", so the admission policy does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from vmoor.model import admission
from vmoor.model.reaper import MANAGER, NAMESPACE, fleet

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
    names = sorted({namespace, minter[0], NAMESPACE}) if namespaces else []
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
        _object(f"{RBAC}/v1", "Role", fleet.NAME, NAMESPACE, rules=FLEET),
        _binding(fleet.NAME, NAMESPACE, (namespace, api), name=f"{fleet.NAME}-{namespace}-{api}"),
        *admission.policy(),
    ]


def reaper(image: str = "", *, namespaces: bool = True) -> Sequence[Manifest]:
    """What `vmoor reaper` needs; with an `image` also the Deployment that runs it."""
    account = (NAMESPACE, MANAGER)
    role = _object(f"{RBAC}/v1", "ClusterRole", MANAGER, rules=REAPER)
    return [
        *([_object("v1", "Namespace", NAMESPACE)] if namespaces else []),
        _account(MANAGER, NAMESPACE),
        role,
        _binding(MANAGER, None, account),
        _object(f"{RBAC}/v1", "Role", MANAGER, NAMESPACE, rules=REAPERS_OWN),
        _binding(MANAGER, NAMESPACE, account),
        *admission.reaper_policy(),
        *([_deployment(image)] if image else []),
    ]


def _rule(group: str, resource: str, *verbs: str, names: Sequence[str] = ()) -> Manifest:
    rule = {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule


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


FLEET = [_rule("coordination.k8s.io", "leases", "get", names=[fleet.NAME])]

# Which of all Leases and entries it may touch is the admission policy's part.
REAPER = [
    _rule("coordination.k8s.io", "leases", "get", "list", "watch", "update", "delete"),
    _rule("networking.istio.io", "workloadentries", "get", "list", "watch", "delete"),
    _rule("networking.istio.io", "workloadentries/status", "patch"),
    _rule("", "events", "create", "patch"),
]
REAPERS_OWN = [_rule("coordination.k8s.io", "leases", "create")]


def _minting(accounts: Sequence[str]) -> Sequence[Manifest]:
    return [_rule("", "serviceaccounts/token", "create", names=accounts)]


def _account(name: str, namespace: str) -> Manifest:
    return _object("v1", "ServiceAccount", name, namespace, automountServiceAccountToken=False)


def _binding(
    role: str, namespace: Optional[str], account: tuple[str, str], *, name: str = ""
) -> Manifest:
    """Without a namespace a ClusterRoleBinding."""
    subject = {"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}
    kind = "Role" if namespace else "ClusterRole"
    return _object(
        f"{RBAC}/v1",
        f"{kind}Binding",
        name or role,
        namespace,
        roleRef={"apiGroup": RBAC, "kind": kind, "name": role},
        subjects=[subject],
    )


def _deployment(image: str) -> Manifest:
    labels = {**PART_OF, "app.kubernetes.io/name": MANAGER}
    closed = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "reaper",
        "image": image,
        "args": ["reaper"],
        # Of 10 000 VMs with three services each, without a limit of the CPU: it must not be late.
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": closed,
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    pod = {
        "serviceAccountName": MANAGER,
        "automountServiceAccountToken": True,
        "securityContext": {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread],
        "containers": [container],
    }
    # In the mesh it would wait for istiod, and istiod's failures are what it has to outlive.
    template = {
        "metadata": {"labels": {**labels, "sidecar.istio.io/inject": "false"}},
        "spec": pod,
    }
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    return _object("apps/v1", "Deployment", MANAGER, NAMESPACE, spec=spec)


def _object(
    version: str, kind: str, name: str, namespace: Optional[str] = None, **more: Any
) -> Manifest:
    meta: Manifest = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": {**meta, "labels": PART_OF}, **more}
