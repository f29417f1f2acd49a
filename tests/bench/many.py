"""Fifty services on one VM, two hundred checks each second, while nothing changes."""

from __future__ import annotations

import time

import yaml

from tests.bench.figures import Row, Series
from tests.bench.idle import Taken
from tests.bench.scene import AGENT, Scene, host_pid
from tests.mesh_setup import NAMESPACE
from tests.sources import Api

SERVICES, CHECKS = 50, 4
FIRST_PORT = 20000
DROP_IN = "/etc/vmoor/conf.d/30-many.yaml"
QUIET_S, WINDOW_S = 45.0, 30.0
MEMORY_MB, CPU_MS = 60.0, 50.0

# One process that answers on all ports, so that its own work stays small.
_SERVER = """\
import selectors, socket
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok"
with selectors.DefaultSelector() as selector:
    for port in range(FIRST, FIRST + COUNT):
        server = socket.create_server(("", port), backlog=64)
        selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                client, _ = key.fileobj.accept()
                selector.register(client, selectors.EVENT_READ, "client")
            else:
                if key.fileobj.recv(4096):
                    key.fileobj.sendall(ANSWER)
                selector.unregister(key.fileobj)
                key.fileobj.close()
""".replace("COUNT", str(SERVICES)).replace("FIRST", str(FIRST_PORT))


def checked(scene: Scene, _: int) -> list[Row]:
    vm, api = scene.web, Api(scene.stage.rig, NAMESPACE)
    scene.moored()
    vm.write("/usr/local/bin/many.py", _SERVER)
    vm.sh("systemd-run --quiet --unit=many /usr/bin/python3 /usr/local/bin/many.py")
    checks = [{"http": f"/{n}", "period": "1s"} for n in range(CHECKS)]
    services = {f"s{n}": {"port": FIRST_PORT + n, "checks": checks} for n in range(SERVICES)}
    try:
        vm.write(DROP_IN, yaml.safe_dump({"services": services}))
        vm.run("systemctl", "reload", AGENT)
        vm.wait(lambda: len(_entries(api, vm.name, "True")) > SERVICES, 60, "all", period=0.5)
        # What nobody selects is told in each entry, once, within half a minute.
        last = [_entries(api, vm.name), set()]
        while last[0] != last[1]:
            time.sleep(QUIET_S)
            last = [_entries(api, vm.name), last[0]]
        pid, versions = host_pid(vm, AGENT), last[0]
        before = Taken.now(pid)
        time.sleep(WINDOW_S)
        after = Taken.now(pid)
        written = len(_entries(api, vm.name) - versions)
    finally:
        vm.sh(f"rm -f {DROP_IN}; systemctl reload {AGENT}; systemctl stop many")
    cpu = (after.cpu_ms - before.cpu_ms) / WINDOW_S
    what = f"{SERVICES} services, {SERVICES * CHECKS} http checks each second"
    return [
        Row(f"{what}: memory (VmRSS)", Series((after.rss_mb,), "MB"), bar=f"<= {MEMORY_MB:.0f} MB",
            met=after.rss_mb <= MEMORY_MB),
        Row(f"{what}: CPU over {WINDOW_S:.0f} s", Series((cpu,), "ms/s"),
            bar=f"<= {CPU_MS:.0f} ms/s", met=cpu <= CPU_MS),
        Row(f"{what}: entries written meanwhile", str(written), bar="0", met=written == 0),
    ]  # fmt: skip


def _entries(api: Api, vm: str, healthy: str = "") -> set[tuple[str, str]]:
    """Name and version of the VM's entries, of those with this health if it is given."""
    what = f"workloadentries?labelSelector=vmoor.io/vm={vm}"
    found = set()
    for entry in api.get("networking.istio.io", what).json()["items"]:
        conditions = (entry.get("status") or {}).get("conditions") or []
        states = [c["status"] for c in conditions if c["type"] == "Healthy"]
        if not healthy or healthy in states:
            found.add((entry["metadata"]["name"], entry["metadata"]["resourceVersion"]))
    return found
