"""What the system tests look at: the agent's own word, systemd's, the cluster's and the proxy's.

Tests wait by `Machine.wait` and the functions here; none sleeps for a guessed time.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.load import Load
from tests.rig.machine import Machine
from tests.system.fleet import CONFIGURATION, SECRET_ID, Document, Fleet

PATIENCE = 60.0  # seconds; everything takes a few, on a machine that does other things too
AGENT = "vmoor.service"
PROXY = "vmoor-proxy.service"
REINSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --reinstall vmoor"


# The agent's own word


def document(vm: Machine) -> Document:
    """/run/vmoor/status.json, {} while there is none; quick enough to poll."""
    try:
        path = Path(f"/proc/{vm.pid1}/root/run/vmoor/status.json")
        found: Document = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def status(vm: Machine) -> Document:
    """`vmoor status --json`; exit code 1 is an answer too."""
    found: Document = json.loads(vm.run("vmoor", "status", "--json", check=False).stdout)
    return found


def step(vm: Machine, name: str) -> Document:
    """One step of the status: name, state (ok, wait, fail), words, remedy; {} = not there."""
    for found in document(vm).get("steps", ()):
        if found["name"] == name:
            return dict(found)
    return {}


def moored(vm: Machine) -> bool:
    return document(vm).get("state") == "moored"


def wait_moored(vm: Machine, timeout: float = PATIENCE) -> float:
    return vm.wait(lambda: moored(vm), timeout, "it to be moored", period=0.02)


def told(
    vm: Machine, at: str, words: str, *, remedy: str = "", state: str = "fail",
    timeout: float = PATIENCE,
) -> Document:  # fmt: skip
    """Wait until the agent says that step `at` fails for this reason (regexes), and with which
    remedy; then the same must stand in `systemctl status` and in `vmoor status`."""

    def says() -> bool:
        found = step(vm, at)
        return bool(
            found.get("state") == state
            and re.search(words, found["words"])
            and re.search(remedy, found["remedy"])
        )

    vm.wait(says, timeout, f"{at} to tell {words!r} and {remedy!r}", period=0.02)
    found = step(vm, at)

    def in_status_text() -> bool:
        text = status_text(vm)
        return at in text and re.search(words, text) is not None and found["remedy"] in text

    vm.wait(in_status_text, 10, f"STATUS= to tell {words!r}", period=0.1)
    shown = vm.run("vmoor", "status", check=False)
    assert shown.returncode == 1, shown.stdout
    assert re.search(words, shown.stdout), shown.stdout
    assert found["remedy"] in shown.stdout, shown.stdout
    return found


# systemd's word


def status_text(vm: Machine) -> str:
    """The line `Status:` of `systemctl status vmoor`."""
    return vm.unit_property(AGENT, "StatusText")


def units(vm: Machine) -> list[str]:
    """Ours that systemd has loaded; one that others only name is "not-found"."""
    listed = vm.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "vmoor*").stdout
    return [line.split()[0] for line in listed.splitlines() if "not-found" not in line]


def process_of(vm: Machine, unit: str = AGENT) -> Mapping[str, str]:
    """What is another one after each start of the unit."""
    said = vm.run("systemctl", "show", "-p", "ActiveState,MainPID,NRestarts,InvocationID", unit)
    return dict(line.split("=", 1) for line in said.stdout.splitlines())


@contextlib.contextmanager
def unharmed(vm: Machine, *units: str) -> Iterator[None]:
    """These units (default: the agent) are active in the same process before and after."""
    names = units or (AGENT,)
    before = {name: process_of(vm, name) for name in names}
    for name in names:
        assert before[name]["ActiveState"] == "active", (name, before[name])
    yield
    assert {name: process_of(vm, name) for name in names} == before


@contextlib.contextmanager
def kept(fleet: Fleet, client: Machine, vm: Machine) -> Iterator[None]:
    """The agent, the proxy, the entry and the endpoint in the client's Envoy stay as they are."""
    assert fleet.in_mesh(client, vm)
    before = fleet.entry(vm)
    assert healthy(before)
    with unharmed(vm, AGENT, PROXY):
        yield
    after = fleet.entry(vm)
    assert healthy(after), after
    assert uid(after) == uid(before)
    assert fleet.in_mesh(client, vm)


@contextlib.contextmanager
def unnoticed(fleet: Fleet, client: Machine, vm: Machine) -> Iterator[None]:
    """No request fails; the proxy's process, the entry and the Lease stay; it is moored after."""
    before = uid(fleet.entry(vm)), uid(fleet.lease(vm))
    with unharmed(vm, PROXY), Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.answers) > 50, 20, "requests")
        yield
        beats(fleet, vm)
        wait_moored(vm)
    print(f"{len(load.answers)} requests, {len(load.failed)} failed")
    assert not load.failed, load.failed[:5]
    assert (uid(fleet.entry(vm)), uid(fleet.lease(vm))) == before
    assert healthy(fleet.entry(vm))


# The cluster's word


def healthy(entry: Any) -> bool:
    conditions = ((entry or {}).get("status") or {}).get("conditions") or []
    return any(c["type"] == "Healthy" and c["status"] == "True" for c in conditions)


def uid(found: Any) -> str:
    return str((found or {}).get("metadata", {}).get("uid", ""))


def beats(fleet: Fleet, vm: Machine, count: int = 2, timeout: float = PATIENCE) -> None:
    """Wait for so many beats from now on."""

    def renewed() -> str:
        lease = fleet.lease(vm)
        return str(lease["spec"]["renewTime"]) if lease else ""

    for _ in range(count):
        last = renewed()
        vm.wait(lambda last=last: renewed() != last, timeout, "a beat", period=0.1)  # type: ignore[misc]


# What tests do to a VM


def configure(vm: Machine, config: Mapping[str, Any] | str, path: str = CONFIGURATION) -> None:
    vm.write(path, config if isinstance(config, str) else json.dumps(config))


def give_secret_id(vm: Machine, secret_id: str) -> None:
    """As an administrator would write it: for the agent's group."""
    vm.write(SECRET_ID, secret_id, 0o640, "root:vmoor")


def cold_start(vm: Machine, config: Mapping[str, Any] | str, secret_id: str = "") -> None:
    """The agent as after a first boot, nothing kept from before, with this configuration."""
    vm.sh(
        "systemctl stop vmoor vmoor-proxy; "
        "rm -rf /var/lib/vmoor/* /run/vmoor/* /run/vmoor-proxy/* /etc/vmoor/conf.d/* "
        f"{SECRET_ID}"
    )
    configure(vm, config)
    if secret_id:
        give_secret_id(vm, secret_id)
    vm.run("systemctl", "start", "vmoor")


def journal_since(vm: Machine, began: float, unit: str = AGENT) -> str:
    """What a unit wrote since time.time() `began`."""
    since = f"--since=@{began:.3f}"
    return vm.run("journalctl", "-q", "-o", "cat", "-u", unit, since).stdout


def now(vm: Machine) -> float:
    """For journal_since: everything written before it is not in it."""
    vm.run("journalctl", "--sync")
    return time.time()
