"""The cluster as the operator's kubectl sees it: any kubeconfig works, exec plug-ins included.

It only reads. What is to be written is printed for `kubectl apply`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from vmoor.adapters import run
from vmoor.errors import LocalFault, quoted

TIMEOUT_S = 60.0  # an exec plug-in may open a browser
# kubectl and its plug-ins need the operator's environment, but nothing of Vault's.
_HIDDEN = ("VAULT_", "BAO_")


class Kubectl:
    def __init__(self, kubeconfig: str = "", context: str = "") -> None:
        """Empty ones are kubectl's own defaults."""
        self._argv = ["kubectl"]
        if kubeconfig:
            self._argv.append(f"--kubeconfig={kubeconfig}")
        if context:
            self._argv.append(f"--context={context}")

    def cluster(self) -> Mapping[str, Any]:
        """The kubeconfig's entry of the cluster, certificates inline. Raises LocalFault."""
        view = self._json(
            ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"], "the kubeconfig"
        )
        clusters = (view or {}).get("clusters") or []
        if not clusters:
            raise LocalFault(
                "cannot use the kubeconfig: its context names no cluster",
                remedy="choose one: --kubeconfig, --context",
            )
        found: Mapping[str, Any] = clusters[0]["cluster"]
        return found

    def get(self, kind: str, name: str, namespace: str) -> Optional[Mapping[str, Any]]:
        """The object, None when there is none of that name. Raises LocalFault."""
        arguments = ["get", kind, name, f"--namespace={namespace}", "--ignore-not-found"]
        return self._json([*arguments, "-o", "json"], f"{kind} {namespace}/{name}")

    def _json(self, arguments: Sequence[str], what: str) -> Optional[Mapping[str, Any]]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(_HIDDEN)}
        done = run.run([*self._argv, *arguments], timeout=TIMEOUT_S, env=env)
        if done.code != 0:
            raise LocalFault(f"cannot read {what}: {quoted(done.stderr)}")
        if not done.stdout.strip():
            return None
        value: Mapping[str, Any] = json.loads(done.stdout)
        return value
