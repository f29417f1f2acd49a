"""kill -9 of the application until another VM's Envoy would send it nothing any more."""

from __future__ import annotations

from tests.bench import istio
from tests.bench.figures import Row, Series
from tests.bench.scene import AGENT, Scene
from tests.mesh_setup import HOST

BAR_S = 0.2
BEAT_S = 3.0  # the one regular thing that the agent does
SLOW_RUNS = 3  # of Istio's default: up to 10 s for one


def service(scene: Scene, runs: int) -> list[Row]:
    ours = []
    for run in range(runs):
        # An agent that has just started holds out nobody for having fallen before.
        scene.web.run("systemctl", "restart", AGENT)
        scene.moored()
        ours.append(scene.crash(scene.web, HOST, BEAT_S))
        scene.tell(f"crash {run + 1}/{runs}: {ours[-1]:.3f} s")
    vmoor = Series(tuple(1e3 * took for took in ours), "ms")
    rows = []
    for period in istio.PERIODS:
        other = _theirs(scene, period, runs if period == 1 else min(runs, SLOW_RUNS))
        rows.append(
            Row(
                "kill -9 of a service: out of another VM's Envoy "
                f"(Istio: probe period {period} s)",
                vmoor, other, f"worst <= {BAR_S} s", vmoor.worst <= 1e3 * BAR_S,
            )
        )  # fmt: skip
    return rows


def _theirs(scene: Scene, period: int, runs: int) -> Series:
    scene.istio.reset()
    scene.istio.configure(period)
    scene.istio.start()
    scene.until_listed(scene.istio.vm, istio.HOST)
    took = []
    for run in range(runs):
        took.append(scene.crash(scene.istio.vm, istio.HOST, period))
        scene.tell(f"crash, Istio at {period} s, {run + 1}/{runs}: {took[-1]:.3f} s")
    scene.istio.reset()
    return Series(tuple(1e3 * t for t in took), "ms")
