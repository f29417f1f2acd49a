"""From a start to an endpoint in another VM's Envoy: of the agent, and of the whole VM."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tests.bench import istio, steps
from tests.bench.figures import Row, Series
from tests.bench.scene import Scene, any_phase, plain_secret_id
from tests.bench.steps import Steps
from tests.sources import Audit

BAR = 1.3  # times Istio's own path
BOOTS = 3

# As after the package's installation: the SecretID is there, nothing was ever fetched with it.
_COLD = """\
systemctl stop vmoor vmoor-proxy
rm -rf /var/lib/vmoor/* /run/vmoor/* /run/vmoor-proxy/* /var/lib/vmoor-proxy/*
"""


def agent(scene: Scene, runs: int) -> list[Row]:
    scene.istio.configure(period=1)
    audit = Audit(scene.stage.rig.vault)
    ours: list[Mapping[str, float]] = []
    theirs: list[tuple[float, float]] = []
    for run in range(runs):  # in turns, so that noise of the machine hits both
        ours.append(_ours(scene, audit))
        theirs.append(_theirs(scene))
        scene.tell(f"start {run + 1}/{runs}: {ours[-1]['mesh']:.2f} s, {theirs[-1][0]:.2f} s")
    scene.istio.reset()
    vmoor, other = Series(tuple(run["mesh"] for run in ours)), Series(tuple(t for t, _ in theirs))
    whole = Series(tuple(t for _, t in theirs))
    return [
        Row(
            "start of the agent, credentials cold: endpoint in another VM's Envoy",
            vmoor, other, f"median <= {BAR} x Istio's", vmoor.median <= BAR * other.median,
            notes=(
                f"median run: {steps.shares(steps.middle(ours), steps.START)}",
                "Istio's counts from pilot-agent's start, with its token in place and the capture "
                f"rules set; from `systemctl start istio`: {whole}",
            ),
            raw={"steps": ours},
        )
    ]  # fmt: skip


def _ours(scene: Scene, audit: Audit) -> Mapping[str, float]:
    vm = scene.web
    vm.sh(_COLD)
    scene.until_gone(vm)
    any_phase()
    reached = Steps(audit, vm)
    vm.run("systemctl", "start", "--no-block", "vmoor")
    scene.until_listed(vm)
    return reached.reached(time.monotonic())


def _theirs(scene: Scene) -> tuple[float, float]:
    """Seconds from the start of pilot-agent, and from that of istio.service."""
    scene.istio.reset()
    scene.until_gone(scene.istio.vm, istio.HOST)
    any_phase()
    began = time.monotonic()
    scene.istio.start()
    scene.until_listed(scene.istio.vm, istio.HOST)
    listed = time.monotonic()
    return listed - scene.istio.started(), listed - began


def boot(scene: Scene, runs: int) -> list[Row]:
    audit = Audit(scene.stage.rig.vault)
    found: list[Mapping[str, float]] = []
    for run in range(min(runs, BOOTS)):
        vm = plain_secret_id(scene.stage, f"boot-{run}", f"198.18.0.{41 + run}")
        reached = Steps(audit, vm)
        vm.boot()
        scene.until_listed(vm)
        found.append(reached.reached(time.monotonic()))
        vm.power_cut()
        scene.stage.rig.kubectl(
            "delete", "workloadentries,leases", "-n", "shop", "-l", f"vmoor.io/vm={vm.name}"
        )
        scene.tell(f"boot {run + 1}: {found[-1]['mesh']:.2f} s")
    return [
        Row(
            "boot of the VM (a container): endpoint in another VM's Envoy",
            Series(tuple(run["mesh"] for run in found)), bar="reported",
            notes=(
                "median run: "
                + steps.shares(steps.middle(found), (*steps.BOOT, *steps.START[1:])),
            ),
            raw={"steps": found},
        )
    ]  # fmt: skip
