"""What is done to an agent in its life, under load: killed, restarted, installed anew."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable

from tests.bench.figures import Row
from tests.bench.scene import AGENT, PROXY, Scene, host_pid
from tests.load import Load
from tests.mesh_setup import HOST, NAMESPACE, VIP
from tests.rig import process
from tests.sources import Api
from tests.stage import kill_main

BAR_S = 2.0
RUNS = 3
_AROUND_S = 1.5  # of load before and after
_REINSTALL = "dpkg --install --force-confold /srv/repo/vmoor_*.deb >/dev/null"

DEEDS: dict[str, Callable[[Scene], object]] = {
    "kill -9": lambda scene: kill_main(scene.web, AGENT),
    "restart": lambda scene: scene.web.run("systemctl", "restart", "vmoor"),
    "package reinstall": lambda scene: scene.web.sh(_REINSTALL),
}


@dataclass(frozen=True)
class Felt:
    requests: int
    failed: tuple[str, ...]
    same_proxy: bool
    beat_s: float  # from the death to the next beat


def under_load(scene: Scene, runs: int) -> list[Row]:
    rows = []
    for down in (False, True):
        for name, deed in DEEDS.items():
            felt = []
            for _ in range(min(runs, RUNS)):
                scene.moored()
                with _sealed(scene) if down else contextlib.nullcontext():
                    felt.append(_feel(scene, deed))
            what = f"agent {name} under load{', Vault down' if down else ''}"
            scene.tell(f"{what}: {felt}")
            rows.append(_row(what, felt))
    return rows


@contextlib.contextmanager
def _sealed(scene: Scene) -> Iterator[None]:
    vault = scene.stage.rig.vault
    vault.seal()
    try:
        yield
    finally:
        vault.unseal()


def _feel(scene: Scene, deed: Callable[[Scene], object]) -> Felt:
    api = Api(scene.stage.rig, NAMESPACE)
    proxy = scene.web.unit_property(PROXY, "MainPID")
    death = _Death(host_pid(scene.web, AGENT))
    with Load(scene.client, VIP, HOST) as load:
        time.sleep(_AROUND_S)
        deed(scene)
        died = death.seen()
        beat = process.wait_until(
            lambda: (at := api.renewed(scene.web.name)) > died and at, 30, "a beat", period=0.02
        )
        time.sleep(_AROUND_S)
    return Felt(
        requests=len(load.answers),
        failed=tuple(answer.body for answer in load.failed),
        same_proxy=scene.web.unit_property(PROXY, "MainPID") == proxy,
        beat_s=beat - died,
    )


class _Death:
    """When a process ends, seen at once."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)
        self._at = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        select.select([self._descriptor], [], [])
        self._at = time.time()
        os.close(self._descriptor)

    def seen(self) -> float:
        """Unix seconds."""
        self._thread.join(30)
        if not self._at:
            raise RuntimeError("the agent never ended")
        return self._at


def _row(what: str, felt: list[Felt]) -> Row:
    requests, failed = sum(f.requests for f in felt), [w for f in felt for w in f.failed]
    same, worst = all(f.same_proxy for f in felt), max(f.beat_s for f in felt)
    words = (
        f"{len(failed)} of {requests} requests failed, proxy {'the same' if same else 'ANOTHER'},"
        f" next beat after {worst:.2f} s at worst (n {len(felt)})"
    )
    return Row(
        what, words, bar=f"0 failed, same proxy, beat <= {BAR_S:.0f} s",
        met=not failed and same and worst <= BAR_S,
        notes=tuple(f"a failure: {why}" for why in sorted(set(failed))[:3]), raw={"runs": felt},
    )  # fmt: skip
