"""A service that falls and returns, each second for a minute."""

from __future__ import annotations

import time

from tests.bench.figures import Row
from tests.bench.scene import Scene
from tests.bench.ttl import begin, pushed, say
from tests.mesh_setup import NAMESPACE
from tests.sources import Api

FLIPS = 60
OUT_S = 0.3  # after it a failing service counts as still in the mesh
HELD_S = 10.0  # from then on it is held out
WRITES = 6  # a minute, once it is held
LOOK_S = 0.05


def held(scene: Scene, _: int) -> list[Row]:
    vm, api = scene.web, Api(scene.stage.rig, NAMESPACE)
    scene.moored()
    writes: list[float] = []
    failing = last = 0.0
    version = ""
    with pushed(vm):
        begin(scene, vm)
        began = time.monotonic()
        for second in range(FLIPS):
            bad, flipped = second % 2 == 0, time.monotonic()
            say(vm, b"fail" if bad else b"pass")
            while (now := time.monotonic()) < began + second + 1:
                entry = api.get("networking.istio.io", f"workloadentries/web.{vm.name}").json()
                if entry["metadata"]["resourceVersion"] != version:
                    version = entry["metadata"]["resourceVersion"]
                    writes.append(now - began)
                if scene.listed(vm):
                    last = now - began
                    if bad and now - flipped > OUT_S:
                        failing = max(failing, now - flipped)
                time.sleep(LOOK_S)
    later = [at for at in writes if at > HELD_S]
    words = (
        f"last in the mesh after {last:.1f} s; writes until {HELD_S:g} s: "
        f"{len(writes) - len(later) - 1}, later: {len(later)}"
    )
    met = not failing and last <= HELD_S and len(later) <= WRITES
    what = "a service fails every other second for a minute"
    bar = f"never in the mesh while failing; <= {WRITES} writes a minute once held out"
    return [Row(what, words, bar=bar, met=met, raw={"writes": writes, "failing": failing})]
