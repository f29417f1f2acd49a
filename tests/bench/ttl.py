"""An application says that it fails, until another VM's Envoy has forgotten it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_UNIX, SOCK_DGRAM, socket

import yaml

from tests.bench.figures import Row, Series
from tests.bench.scene import AGENT, PATIENCE, Scene, any_phase
from tests.rig.machine import Machine

BAR_S = 0.2
DROP_IN = "/etc/vmoor/conf.d/40-ttl.yaml"
SOCKET = "/run/vmoor-ttl/web/socket"
SETTLED_S = 1.0  # an agent that has just started has looked at everything by then


@contextmanager
def pushed(vm: Machine) -> Iterator[None]:
    """Its service has a check that an application pushes to."""
    vm.write(DROP_IN, yaml.safe_dump({"services": {"web": {"checks": [{"ttl": "60s"}]}}}))
    try:
        yield
    finally:
        # A restart, so that nobody is held out for having fallen.
        vm.sh(f"rm -f {DROP_IN}; systemctl restart {AGENT}")


def begin(scene: Scene, vm: Machine) -> None:
    """An agent that has just started holds out nobody for having fallen before."""
    vm.run("systemctl", "restart", AGENT)
    vm.wait(lambda: _heard(vm), PATIENCE, "the socket")
    scene.until_listed(vm)


def fails(scene: Scene, runs: int) -> list[Row]:
    vm, took = scene.web, []
    scene.moored()
    with pushed(vm):
        for run in range(runs * 5 // 2):
            begin(scene, vm)
            time.sleep(SETTLED_S)
            any_phase()
            began = time.monotonic()
            say(vm, b"fail")
            scene.until_gone(vm)
            took.append(1e3 * (time.monotonic() - began))
            say(vm, b"pass")
            scene.until_listed(vm)
            scene.tell(f"ttl fail {run + 1}: {took[-1]:.0f} ms")
    out = Series(tuple(took), "ms")
    return [
        Row("an application says `fail` (ttl): out of another VM's Envoy", out,
            bar=f"worst <= {BAR_S} s", met=out.worst <= 1e3 * BAR_S)
    ]  # fmt: skip


def _heard(vm: Machine) -> bool:
    try:
        say(vm, b"pass")
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


def say(vm: Machine, message: bytes) -> None:
    with socket(AF_UNIX, SOCK_DGRAM) as link:
        link.sendto(message, f"/proc/{vm.pid1}/root{SOCKET}")
