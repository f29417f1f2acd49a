"""`vmoor fleet` over ten thousand VMs of three services each, at a real API server.

python3 -m tests.bench.look [VMS] measures it alone.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Callable

from vmoor.adapters.clock import SystemClock
from vmoor.adapters.kube import Access, Kube
from vmoor.model.entry import Object
from vmoor.model.lease import Pace
from vmoor.model.reaper import fleet
from vmoor.model.secret import Secret
from vmoor.model.service import Workload
from vmoor.ports import Kind

from tests.bench import alone
from tests.bench.figures import Row, Series
from tests.bench.scene import Scene
from tests.rig import etcd, inside
from tests.rig.process import wait_until
from tests.rig.rig import Rig
from tests.unit.reaper.world import SimVm

VMS = 10_000
SERVICES = ("web", "api", "db")
NAMESPACE = "crowd"
SAMPLE = "vm-sample"
RUNS = 5
BAR_S = 2.0
TXN = 100  # etcd takes 128 operations at once
D = 30.0


def measure(rig: Rig, vmoor: Callable[[str], str], count: int, runs: int = RUNS) -> list[Row]:
    rig.kubectl("create", "namespace", NAMESPACE)
    _seed(rig, count)

    def shown() -> bool:
        said = vmoor(f"vmoor fleet -n {NAMESPACE} || test $? = 1")  # 1: no reaper watches
        all_beat = said.startswith(f"{count} VMs: {count} beats")
        return all_beat and said.count(f" {' '.join(sorted(SERVICES))}\n") == count

    # Its watch of etcd takes in some hundred objects a second, and each look delays it.
    wait_until(shown, 300, "the API server to have them all", period=20.0)
    took = []
    for _ in range(runs):
        began = time.monotonic()
        assert shown()
        took.append(time.monotonic() - began)
    what = f"`vmoor fleet`, {count} VMs of {len(SERVICES)} services"
    return [Row(what, Series(tuple(took)), bar=f"<= {BAR_S:.0f} s", met=max(took) <= BAR_S)]


def _seed(rig: Rig, count: int) -> None:
    """One is written by the API server; the others are its like, written into etcd."""
    lease, entries = inside.call(rig.network.netns_path, lambda: _sample(rig, count))
    rig.kubectl("delete", "leases,workloadentries", "-n", NAMESPACE, "--all", "--wait=false")
    texts = {f"/registry/leases/{NAMESPACE}/vmoor-": [lease]}
    prefix = "/registry/networking.istio.io/workloadentries"
    texts |= {f"{prefix}/{NAMESPACE}/{service}.": [entry]
              for service, entry in zip(SERVICES, entries)}  # fmt: skip
    puts = (
        {"requestPut": {"key": _b64(key + f"vm{n}"), "value": _b64(_like(text, n))}}
        for key, (text,) in texts.items()
        for n in range(count)
    )
    for batch in _batches(puts):
        answer = rig.http("POST", f"{etcd.URL}/v3/kv/txn", json={"success": batch}, timeout=30)
        answer.raise_for_status()


def _sample(rig: Rig, count: int) -> tuple[str, Sequence[str]]:
    access = Access((rig.kube.url,), rig.kube.ca, Secret(rig.kube.token), NAMESPACE, "admin", "")
    cluster = Kube(lambda: access)
    vm = SimVm(
        cluster, SystemClock(), SAMPLE, workload=Workload(NAMESPACE, "herd", "herd"),
        address="10.0.0.1", locality="eu-west-1/eu-west-1a",
    )  # fmt: skip
    vm.beat(Pace(fleet.interval(count)).duration)
    vm.beat(Pace(fleet.interval(count)).duration)
    vm.serve(*SERVICES)
    found = [cluster.get(Kind.LEASE, f"vmoor-{SAMPLE}", deadline=D)]
    found += [cluster.get(Kind.ENTRY, f"{s}.{SAMPLE}", deadline=D) for s in SERVICES]
    lease, *entries = [_stored(thing or {}) for thing in found]
    return lease, entries


def _stored(thing: Object) -> str:
    """As etcd holds it: the version is not in it."""
    meta = {k: v for k, v in thing["metadata"].items() if k != "resourceVersion"}
    return json.dumps({**thing, "metadata": meta})


def _like(text: str, n: int) -> str:
    thing: dict[str, Any] = json.loads(text.replace(SAMPLE, f"vm{n}"))
    thing["metadata"]["uid"] = str(uuid.uuid4())
    if "address" in thing["spec"]:
        thing["spec"]["address"] = f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
    return json.dumps(thing)


def _batches(things: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(things, TXN)):
        yield batch


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def thousands(scene: Scene, runs: int) -> list[Row]:
    return measure(scene.stage.rig, scene.stage.mesh.sh, VMS, min(runs, RUNS))


if __name__ == "__main__":
    alone.run(measure, VMS)
