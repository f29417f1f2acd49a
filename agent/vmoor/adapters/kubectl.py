"""The cluster as the operator's kubectl sees it: any kubeconfig works, exec plug-ins included.

It reads; what is to be written is printed for `kubectl apply`, but for what a command says itself.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

from vmoor.adapters import run
from vmoor.adapters.items import Items
from vmoor.errors import LocalFault, quoted
from vmoor.model.entry import Object

LIMIT = 256 << 20  # bytes; 30 000 entries are 70 MB
TIMEOUT_S = 60.0  # an exec plug-in may open a browser
# kubectl and its plug-ins need the operator's environment, but nothing of Vault's.
_HIDDEN = ("VAULT_", "BAO_")
# What kubectl says when no kubeconfig names a cluster; the address is where it looks then.
_NOWHERE = ("localhost:8080", "current-context must exist")


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

    def each(self, path: str, take: Callable[[Object], None]) -> None:
        """`take` each object of the list at this path, without kubectl's own reading of it, which
        is slow. Raises LocalFault.
        """
        items = Items(take)
        done = self._run(["get", "--raw", path], heed=items.feed)
        if done.code != 0:
            what = path.partition("?")[0].rpartition("/")[2]
            raise _failed(f"cannot read {what}", done.stderr)
        items.end()

    def apply(self, objects: Sequence[Mapping[str, Any]], *, manager: str) -> None:
        """Server-side, as this field manager, by force. Raises LocalFault."""
        body = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        arguments = ["apply", "--server-side", "--force-conflicts", f"--field-manager={manager}"]
        done = self._run([*arguments, "-f", "-"], json.dumps(body))
        if done.code != 0:
            raise _failed("cannot write with kubectl", done.stderr)

    def _run(
        self,
        arguments: Sequence[str],
        text: str = "",
        heed: Optional[Callable[[bytes], None]] = None,
    ) -> run.Done:
        if shutil.which("kubectl") is None:
            raise LocalFault(
                "cannot find kubectl", remedy="install it, or name its folder in PATH"
            )
        env = {k: v for k, v in os.environ.items() if not k.startswith(_HIDDEN)}
        argv = [*self._argv, *arguments]
        return run.run(argv, timeout=TIMEOUT_S, env=env, input=text, limit=LIMIT, heed=heed)

    def _json(self, arguments: Sequence[str], what: str) -> Optional[Mapping[str, Any]]:
        done = self._run(arguments)
        if done.code != 0:
            raise _failed(f"cannot read {what}", done.stderr)
        if not done.stdout.strip():
            return None
        value: Mapping[str, Any] = json.loads(done.stdout)
        return value


def _failed(words: str, stderr: str) -> LocalFault:
    if any(sign in stderr for sign in _NOWHERE):
        remedy = "name one: --kubeconfig FILE [--context NAME], or $KUBECONFIG"
        return LocalFault(f"{words}: no kubeconfig", remedy=remedy)
    return LocalFault(f"{words}: {quoted(stderr)}")
