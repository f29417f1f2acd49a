"""A minute in which nothing happens: what the agent takes, and what its beats cost istiod."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Row, Series
from tests.bench.scene import AGENT, Scene, configuration, host_pid
from tests.mesh_setup import NAMESPACE
from tests.rig.machine import Machine
from tests.sources import Api

MINUTE_S = 60.0
QUIET_S = 10.0  # before it: whatever followed from what was done before is over
MEMORY_MB = 40.0
CPU_MS = 3.0  # per second
BAO = "bao-agent.service"

_HCL = """\
vault {{
  address = "{address}"
  ca_cert = "/etc/vmoor/vault-ca.pem"
}}
auto_auth {{
  method "approle" {{
    config = {{
      role_id_file_path                   = "/run/bao-agent/role-id"
      secret_id_file_path                 = "/etc/vmoor/credentials/secret-id"
      remove_secret_id_file_after_reading = false
    }}
  }}
  sink "file" {{
    config = {{
      path = "/run/bao-agent/token"
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Taken:
    rss_mb: float
    pss_mb: float
    cpu_ms: float  # since its start, children that ended included

    @staticmethod
    def now(pid: int) -> Taken:
        process = Path("/proc", str(pid))
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
        return Taken(
            rss_mb=_kib((process / "status").read_text(), "VmRSS") / 1024,
            pss_mb=_kib((process / "smaps_rollup").read_text(), "Pss") / 1024,
            cpu_ms=1e3 * ticks / os.sysconf("SC_CLK_TCK"),
        )


def _kib(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no {name} in {text}")
    return int(found[1])


def minute(scene: Scene, _: int) -> list[Row]:
    scene.moored()
    vm, istiod = scene.web, scene.stage.rig.istiod
    _start_bao(scene.stage.rig.binaries.bao, vm)
    time.sleep(QUIET_S)
    pids = {unit: host_pid(vm, unit) for unit in (AGENT, BAO)}
    before, pushed = {u: Taken.now(pid) for u, pid in pids.items()}, istiod.pushes()
    beats = _beats(Api(scene.stage.rig, NAMESPACE), vm)
    after, pushes = {u: Taken.now(pid) for u, pid in pids.items()}, istiod.pushes()
    vm.run("systemctl", "stop", BAO)
    more = {name: n - pushed.get(name, 0.0) for name, n in pushes.items()}
    counted = {name: n for name, n in more.items() if n}
    sent = int(sum(n for name, n in more.items() if name.startswith("pilot_xds_pushes")))
    agent, bao = after[AGENT], after[BAO]
    cpu, bao_cpu = ((after[u].cpu_ms - before[u].cpu_ms) / MINUTE_S for u in (AGENT, BAO))
    beside = "the second column is `bao agent` (AppRole, file sink) in the same VM"
    return [
        Row("xDS pushes by 60 s of heartbeats", f"{sent} ({beats} beats)", bar="0",
            met=sent == 0, notes=(f"istiod's counters that moved: {counted or 'none'}",)),
        Row("agent idle: memory (VmRSS)", Series((agent.rss_mb,), "MB"),
            f"bao agent: {bao.rss_mb:.1f} MB", f"<= {MEMORY_MB:.0f} MB",
            agent.rss_mb <= MEMORY_MB,
            notes=(beside, f"PSS {agent.pss_mb:.1f} MB, bao agent {bao.pss_mb:.1f} MB")),
        Row("agent idle: CPU over 60 s", Series((cpu,), "ms/s"),
            f"bao agent: {bao_cpu:.2f} ms/s", f"<= {CPU_MS:.0f} ms/s", cpu <= CPU_MS,
            notes=(beside,)),
    ]  # fmt: skip


def _beats(api: Api, vm: Machine) -> int:
    """How many were seen while a minute went by."""
    end, seen = time.monotonic() + MINUTE_S, set()
    while (left := end - time.monotonic()) > 0:
        seen.add(api.renewed(vm.name))
        time.sleep(min(1.0, left))
    return len(seen) - 1


def _start_bao(binary: Path, vm: Machine) -> None:
    shutil.copy(binary, f"/proc/{vm.pid1}/root/usr/local/bin/bao")
    vault = configuration(vm)["vault"]
    vm.write("/etc/bao-agent.hcl", _HCL.format(address=vault["address"]))
    vm.sh(
        "install -d -o vmoor -m 0700 /run/bao-agent;"
        f"printf %s '{vault['auth']['role_id']}' > /run/bao-agent/role-id;"
        "chown vmoor /run/bao-agent/role-id;"
        f"systemd-run --quiet --unit={BAO} --uid=vmoor --gid=vmoor"
        " /usr/local/bin/bao agent -config=/etc/bao-agent.hcl"
    )
    vm.wait(lambda: vm.run("test", "-s", "/run/bao-agent/token", check=False).returncode == 0,
            30, "bao agent's token", period=0.2)  # fmt: skip
