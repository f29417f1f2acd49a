"""etcd, for the API server alone: it listens on the loopback of the rig's namespace."""

from __future__ import annotations

from dataclasses import dataclass

from tests.rig.ground import Ground
from tests.rig.process import Process

URL = "http://127.0.0.1:2379"
_PEER_URL = "http://127.0.0.1:2380"


@dataclass(frozen=True)
class Etcd:
    process: Process


def start(ground: Ground) -> Etcd:
    argv = [
        str(ground.binaries.etcd),
        f"--data-dir={ground.folder('etcd') / 'data'}",
        f"--listen-client-urls={URL}",
        f"--advertise-client-urls={URL}",
        f"--listen-peer-urls={_PEER_URL}",
        f"--initial-advertise-peer-urls={_PEER_URL}",
        f"--initial-cluster=default={_PEER_URL}",
        "--unsafe-no-fsync",  # nothing in it outlives the rig
    ]
    process = ground.spawn("etcd", argv)
    process.wait_until(lambda: ground.answers(f"{URL}/health"), 20, "healthy")
    return Etcd(process)
