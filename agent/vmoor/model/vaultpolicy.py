"""What Vault lets one kind of VM do, as a policy in HCL.

Parameters are pinned to what the agent sends: a stolen token mints no credential for another
audience or namespace. Renewing and looking up its own token is in Vault's policy `default`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from vmoor.model.facts import ISTIO_AUDIENCE


def policy(
    role: str, namespace: str, mesh: tuple[str, str], *, mount: str, kv_version: int
) -> str:
    """`mesh`: KV mount and path; `mount`: of the Kubernetes secrets engine."""
    facts = "/data/".join(mesh) if kv_version == 2 else "/".join(mesh)  # noqa: PLR2004
    own = {"kubernetes_namespace": namespace}
    return "\n".join(
        [
            "# The mesh facts.",
            f"path {json.dumps(facts)} {{",
            '  capabilities = ["read"]',
            "}",
            "",
            "# The proxy's token: good for istiod only.",
            *_creds(f"{mount}/creds/{role}", {**own, "audiences": ISTIO_AUDIENCE}),
            "",
            "# The agent's token: good for the API server only.",
            *_creds(f"{mount}/creds/{role}-vmoor", own),
            "",
        ]
    )


def _creds(path: str, parameters: Mapping[str, str]) -> list[str]:
    required = ", ".join(json.dumps(key) for key in parameters)
    return [
        f"path {json.dumps(path)} {{",
        '  capabilities        = ["update"]',
        f"  required_parameters = [{required}]",
        "  allowed_parameters  = {",
        *(f"    {json.dumps(k)} = [{json.dumps(v)}]" for k, v in parameters.items()),
        "  }",
        "}",
    ]
