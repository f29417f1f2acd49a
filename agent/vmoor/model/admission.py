"""The admission policies: an agent's account writes its own entries and leases, nothing else,
and the reaper takes marked entries out and away, nothing else.

The agents' judges only callers whose name ends in -vmoor; istiod and people are not asked
anything. Several VMs may share an account: they are not kept apart here.

The old object is judged by its mark alone, and the status subresource too, so that an agent can
repair, take out of the mesh and delete an entry of its own that somebody has edited.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vmoor.model import entry
from vmoor.model.reaper import LEASE_EXPIRED, MANAGER, NAMESPACE

NAME = "vmoor-own-entries"
_ADMISSION = "admissionregistration.k8s.io/v1"
_SUFFIX = "-vmoor"
# Both halves of an entry's name, without a dot: else web + a.b and web.a + b would be one name.
_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


def _label(of: str, key: str) -> str:
    return f"{of}.metadata.?labels[?'{key}'].orValue('')"


def _marked(of: str) -> str:
    return (
        f"{of} == null || ("
        f"{_label(of, entry.MANAGED_BY)} == '{entry.OWNER}' && "
        f"{_label(of, entry.SERVICE_ACCOUNT)} == variables.account && "
        f"{_label(of, entry.VM)} != '')"
    )


_VARIABLES = {
    # system:serviceaccount:shop:web-vmoor -> shop, web
    "caller": "request.userInfo.username.split(':')",
    "name": "variables.caller[variables.caller.size() - 1]",
    "account": f"variables.name.substring(0, variables.name.size() - {len(_SUFFIX)})",
    "vm": _label("object", entry.VM),
    "service": _label("object", entry.SERVICE),
    "isEntry": "request.resource.resource == 'workloadentries'",
    # The key is not there when it would be empty.
    "isStatus": "request.?subResource.orValue('') != ''",
}

# Expression, and what the caller is told.
_VALIDATIONS = (
    (
        "request.userInfo.username == "
        "'system:serviceaccount:' + request.namespace + ':' + variables.name",
        "'it may write in its own namespace only'",
    ),
    (
        _marked("oldObject"),
        "'it may write objects that carry its owner mark only "
        f"({entry.MANAGED_BY}, {entry.VM}, {entry.SERVICE_ACCOUNT})'",
    ),
    (
        _marked("object"),
        f"'it must leave its owner mark: {entry.MANAGED_BY}={entry.OWNER}, {entry.VM}, "
        f"{entry.SERVICE_ACCOUNT}=' + variables.account",
    ),
    (
        "object == null || !variables.isEntry || variables.isStatus || "
        "object.?spec.?serviceAccount.orValue('') == variables.account",
        "'spec.serviceAccount must be ' + variables.account",
    ),
    (
        "object == null || !variables.isEntry || variables.isStatus || ("
        f"variables.service.matches('{_LABEL}') && variables.vm.matches('{_LABEL}') && "
        "object.metadata.name == variables.service + '.' + variables.vm)",
        f"'an entry is named <{entry.SERVICE}>.<{entry.VM}>, two DNS labels'",
    ),
    (
        "object == null || variables.isEntry || object.metadata.name == 'vmoor-' + variables.vm",
        f"'a lease is named vmoor-<{entry.VM}>'",
    ),
)


_OURS = f"{_label('THING', entry.MANAGED_BY)} == '{entry.OWNER}'"
_REAPER = (
    (
        f"oldObject == null || {_OURS.replace('THING', 'oldObject')}",
        f"'it may touch objects of {entry.OWNER} only ({entry.MANAGED_BY})'",
    ),
    (
        f"object == null || {_OURS.replace('THING', 'object')}",
        f"'it must leave {entry.MANAGED_BY}={entry.OWNER}'",
    ),
    (
        "object == null || request.?subResource.orValue('') == '' || "
        f"object.?status.?conditions.orValue([]).all(c, c.type != '{entry.HEALTHY}' || "
        f"(c.status == 'False' && c.reason == '{LEASE_EXPIRED}'))",
        f"'it may say {entry.HEALTHY}=False, {LEASE_EXPIRED}, and nothing else'",
    ),
)


def policy() -> Sequence[dict[str, Any]]:
    """The agents' ValidatingAdmissionPolicy and its binding."""
    who = f"request.userInfo.username.endsWith('{_SUFFIX}')"
    validations = [(e, f"variables.name + ': ' + {told}") for e, told in _VALIDATIONS]
    return _policy(NAME, ("agents-only", who), _VARIABLES, validations)


def reaper_policy() -> Sequence[dict[str, Any]]:
    """RBAC cannot tell a VM's Lease from a node's: this does."""
    account = f"system:serviceaccount:{NAMESPACE}:{MANAGER}"
    who = f"request.userInfo.username == '{account}'"
    return _policy(MANAGER, ("reaper-only", who), {}, _REAPER)


def _policy(
    name: str,
    who: tuple[str, str],
    variables: Mapping[str, str],
    validations: Sequence[tuple[str, str]],
) -> Sequence[dict[str, Any]]:
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "resourceRules": [
                _matched("networking.istio.io", "workloadentries", "workloadentries/status"),
                _matched("coordination.k8s.io", "leases"),
            ]
        },
        "matchConditions": [{"name": who[0], "expression": who[1]}],
        "variables": [{"name": n, "expression": e} for n, e in variables.items()],
        "validations": [
            {"expression": expression, "messageExpression": told}
            for expression, told in validations
        ],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        _object("ValidatingAdmissionPolicy", name, spec),
        _object("ValidatingAdmissionPolicyBinding", name, binding),
    ]


def _matched(group: str, *resources: str) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": list(resources),
    }


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": _ADMISSION,
        "kind": kind,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "vmoor"}},
        "spec": spec,
    }
