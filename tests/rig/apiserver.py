"""kube-apiserver. There is no controller manager: nothing collects objects by itself."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.rig import certs, etcd
from tests.rig.ground import Ground
from tests.rig.network import ADDRESS
from tests.rig.process import Process

_PORT = 6443
_URL = f"https://{ADDRESS}:{_PORT}"


@dataclass(frozen=True)
class ApiServer:
    process: Process
    url: str
    ca: str  # PEM
    token: str  # of user admin, in group system:masters
    kubeconfig: Path


def start(ground: Ground) -> ApiServer:
    """Needs a running etcd."""
    folder = ground.folder("kube-apiserver")
    token = secrets.token_hex(16)
    tokens, accounts = folder / "tokens.csv", folder / "service-accounts.key"
    tokens.write_text(f'{token},admin,admin,"system:masters"\n')
    certs.new_key(accounts)
    certificate, key = ground.authority.issue("kube-apiserver", [ADDRESS, "127.0.0.1"])
    argv = [
        str(ground.binaries.kube_apiserver),
        f"--etcd-servers={etcd.URL}",
        f"--bind-address={ADDRESS}",
        f"--advertise-address={ADDRESS}",
        f"--secure-port={_PORT}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-signing-key-file={accounts}",
        f"--service-account-key-file={accounts}",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={tokens}",
        "--endpoint-reconciler-type=none",
    ]
    process = ground.spawn("kube-apiserver", argv)
    # 60 s: it takes 4 s, but a machine that also compiles may be that much slower.
    process.wait_until(lambda: ground.answers(f"{_URL}/readyz"), 60, "ready")
    kubeconfig = folder / "admin.kubeconfig"
    kubeconfig.write_text(_kubeconfig(ground.authority.path, token))
    return ApiServer(process, _URL, ground.authority.pem, token, kubeconfig)


def _kubeconfig(ca: Path, token: str) -> str:
    cluster = {"server": _URL, "certificate-authority": str(ca)}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "admin"}}],
        "current-context": "rig",
    }
    return yaml.safe_dump(content)
