"""The rules for labels: Kubernetes' syntax, and the labels that are not the operator's to set."""

from __future__ import annotations

import re

# k8s.io/apimachinery/pkg/util/validation: IsQualifiedName, IsValidLabelValue
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DOMAIN_LIMIT = 253

# The owner mark: whoever writes these decides what the agent and the reaper may delete.
RESERVED = ("app.kubernetes.io/managed-by",)
RESERVED_DOMAIN = "vmoor.io"


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
    if value and not _WORD.fullmatch(value):
        return (
            f"'{value[:63]}' is not a label's value: at most 63 letters, digits, dashes, dots "
            "and underscores, a letter or digit first and last"
        )
    return ""
