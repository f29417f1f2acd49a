"""The rules for labels: Kubernetes' syntax, and the labels that are not the operator's to set.

A value may be a template, `web-{zone}`, which each VM fills in for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vmoor.config.problems import listed, nearest
from vmoor.errors import quoted

# k8s.io/apimachinery/pkg/util/validation: IsQualifiedName, IsValidLabelValue
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DOMAIN_LIMIT = 253

# The owner mark: whoever writes these decides what the agent and the reaper may delete.
RESERVED = ("app.kubernetes.io/managed-by",)
RESERVED_DOMAIN = "vmoor.io"

# What a template may hold, and what helps where the VM has no such thing. Single braces: the
# double ones are jinja's in cloud-init's user-data.
VARIABLES: Mapping[str, str] = {
    "vm": "set vm.name",
    "instance_id": "write {vm}: cloud-init tells none",
    "region": "set vm.locality",
    "zone": "set vm.locality",
    "subzone": "set vm.locality",
}
_VARIABLE = re.compile(r"\{([^{}]*)\}")


def refusal(key: str, value: str) -> str:
    """Why this label cannot be, "" when it can."""
    prefix, slash, name = key.rpartition("/")
    if key in RESERVED or prefix == RESERVED_DOMAIN or prefix.endswith(f".{RESERVED_DOMAIN}"):
        return "is vmoor's own label; choose another"
    if slash and not (_DOMAIN.fullmatch(prefix) and len(prefix) <= _DOMAIN_LIMIT):
        return "is not a label's key: before the slash stands a DNS name, such as example.com/tier"
    if not _WORD.fullmatch(name):
        return (
            "is not a label's key: at most 63 letters, digits, dashes, dots and underscores, "
            "a letter or digit first and last"
        )
    return "" if not value or _WORD.fullmatch(value) else _no_value(value)


def template_refusal(key: str, value: str) -> str:
    """Why this label cannot be, whatever its variables stand for; "" when it can."""
    for name in _VARIABLE.findall(value):
        if name not in VARIABLES:
            near = nearest(name, VARIABLES)
            every = listed([_braced(known) for known in VARIABLES], "and")
            hint = f"did you mean {_braced(near)}?" if near else f"there are {every}"
            return f"there is no variable {_braced(quoted(name))}, {hint}"
    shortest = _VARIABLE.sub("x", value)
    return _no_value(value) if shortest and not _WORD.fullmatch(shortest) else refusal(key, "")


def variables(value: str) -> frozenset[str]:
    return frozenset(_VARIABLE.findall(value))


def filled(
    given: Mapping[str, str], known: Mapping[str, str]
) -> tuple[Mapping[str, str], Sequence[tuple[str, str]]]:
    """The labels of this VM, and why some are left out, each with a remedy.

    `known` maps variables to what they are.

    Nothing is made up: a label that lacks one of its variables, or would be none, is left out.
    """
    labels, problems = dict(given), []
    for key, value in given.items():
        lacking = [name for name in sorted(variables(value)) if not known.get(name)]
        if lacking:
            words, remedy = f"there is no {_braced(lacking[0])} here", VARIABLES[lacking[0]]
        else:
            labels[key] = _VARIABLE.sub(lambda found: known[found[1]], value)
            words = refusal(key, labels[key]) if labels[key] != value else ""
            remedy = f"write something else than {quoted(value)}"
        if words:
            del labels[key]
            problems.append((f"label {key} is left out, {words}", remedy))
    return labels, problems


def _braced(name: str) -> str:
    return f"{{{name}}}"


def _no_value(value: str) -> str:
    return (
        f"'{quoted(value)[:63]}' is not a label's value: at most 63 letters, digits, dashes, dots "
        "and underscores, a letter or digit first and last"
    )
