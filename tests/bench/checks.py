"""What each kind of check is worth: a service dies until another VM's Envoy has forgotten it.

And back: from the instant at which the application listens until it has the endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.bench.figures import Row, Series
from tests.bench.scene import AGENT, Scene, any_phase
from tests.mesh_setup import NAMESPACE
from tests.stage import kill_main

PORT, HOST, UNIT = 9000, "db.shop.mesh", "db.service"
DROP_IN = "/etc/vmoor/conf.d/40-db.yaml"
IN_S = 0.5
SETTLED_S = 1.0  # an agent that has just started has looked at everything by then

_PROGRAM = """\
import http.server, os, pathlib, time
server = http.server.ThreadingHTTPServer(("", PORT), http.server.SimpleHTTPRequestHandler)
pathlib.Path("/run/db.listens").write_text(str(time.monotonic()))
pathlib.Path("/run/db.pid").write_text(str(os.getpid()))
server.serve_forever()
""".replace("PORT", str(PORT))
_UNIT = """\
[Service]
WorkingDirectory=/run
ExecStart=/usr/bin/python3 /usr/local/bin/db.py
"""


@dataclass(frozen=True)
class Kind:
    what: str
    service: Mapping[str, Any]
    bar_s: float
    often: bool = True  # fifty times rather than twenty


KINDS = (
    Kind("its unit is dead", {"unit": UNIT}, 0.2),
    Kind("its process is dead (pidfd)", {"checks": [{"process": "/run/db.pid"}]}, 0.2),
    Kind(
        "http each second, 2 failures",
        {"checks": [{"http": "/", "period": "1s", "failure_threshold": 2}]}, 2.4, often=False,
    ),
    Kind(
        "http each 200 ms, 1 failure",
        {"checks": [
            {"http": "/", "period": "200ms", "timeout": "200ms", "failure_threshold": 1},
        ]}, 0.5, often=False,
    ),
)  # fmt: skip


def kinds(scene: Scene, runs: int) -> list[Row]:
    vm = scene.web
    scene.moored()
    vm.write("/usr/local/bin/db.py", _PROGRAM)
    vm.write(f"/etc/systemd/system/{UNIT}", _UNIT)
    vm.run("systemctl", "daemon-reload")
    scene.stage.mesh.sh(
        f"vmoor admin service-entry --namespace {NAMESPACE} --service db --host {HOST} "
        "--port 80:http --vip 240.240.0.9 | kubectl apply -f -"
    )
    try:
        return [row for kind in KINDS for row in _measured(scene, kind, runs)]
    finally:
        vm.sh(f"rm -f {DROP_IN}; systemctl reload {AGENT}; systemctl stop db")


def _measured(scene: Scene, kind: Kind, runs: int) -> list[Row]:
    out, back = [], []
    scene.web.run("systemctl", "start", UNIT)
    scene.web.write(DROP_IN, yaml.safe_dump({"services": {"db": {"port": PORT, **kind.service}}}))
    for _ in range(runs * 5 // 2 if kind.often else runs):
        # An agent that has just started holds out nobody for having fallen before.
        scene.web.run("systemctl", "restart", AGENT)
        scene.until_listed(scene.web, HOST, PORT)
        time.sleep(SETTLED_S)
        any_phase()
        at = kill_main(scene.web, UNIT)
        scene.until_gone(scene.web, HOST, PORT)
        out.append(1e3 * (time.monotonic() - at))
        scene.web.run("systemctl", "start", UNIT)
        scene.until_listed(scene.web, HOST, PORT)
        back.append(1e3 * (time.monotonic() - float(scene.web.read("/run/db.listens"))))
        scene.tell(f"{kind.what}: out {out[-1]:.0f} ms, back {back[-1]:.0f} ms")
    gone, there = Series(tuple(out), "ms"), Series(tuple(back), "ms")
    rows = [
        Row(f"a service dies, {kind.what}: out of another VM's Envoy", gone,
            bar=f"worst <= {kind.bar_s} s", met=gone.worst <= 1e3 * kind.bar_s)
    ]  # fmt: skip
    if "unit" in kind.service:
        rows.append(
            Row("its unit listens: endpoint in another VM's Envoy", there,
                bar=f"worst <= {IN_S} s", met=there.worst <= 1e3 * IN_S)
        )  # fmt: skip
    return rows
