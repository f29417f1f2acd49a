"""The .rpm's own scripts on a booted machine of the mesh, under load.

The machine is a Debian: what is proved are the scriptlets and the files, by rpm itself. Its names
of dependencies are those of other distributions, and tests/packages looks at them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests.rig import process
from tests.rig.machine import Machine
from tests.stage import PROJECT
from tests.system import harness
from tests.system.fleet import Fleet

ACTIVE = ("vmoor.service", "vmoor-proxy.service", "vmoor-exec.socket", "vmoor-ttl.socket")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The .rpm, and a later release of it."""
    folder = tmp_path_factory.mktemp("rpms")
    for name, options in (("now", ()), ("later", ("--define", "dist .later"))):
        build = [str(PROJECT / "packaging/build-rpm.sh"), str(folder / name), *options]
        process.run(build, timeout=600)
    (now,), (later,) = (list((folder / n).glob("*.noarch.rpm")) for n in ("now", "later"))
    return now, later


def rpm(vm: Machine, *args: object) -> str:
    """The host's rpm in all of the VM's namespaces but for the files, which are its --root."""
    enter = ["nsenter", "-t", str(vm.pid1), "-u", "-i", "-n", "-p", "-C", "--"]
    root = [f"--root=/proc/{vm.pid1}/root", "--dbpath=/var/lib/rpm"]
    return process.run([*enter, "rpm", *root, *map(str, args)], timeout=120)


@pytest.fixture(scope="module")
def installed(
    fleet: Fleet, client: Machine, module_vm: Callable[..., Machine], packages: tuple[Path, Path]
) -> Iterator[Machine]:
    text = fleet.user_data("--secret-id=wrapped")
    assert "packages: [vmoor]" in text
    vm = module_vm(user_data=text.replace("packages: [vmoor]", ""))
    assert vm.sh("command -v vmoor || :") == ""
    rpm(vm, "--nodeps", "-i", packages[0])
    # Where a preset disables everything, this is all that the operator does.
    vm.run("systemctl", "disable", "vmoor-exec.socket", "vmoor-ttl.socket")
    vm.run("systemctl", "enable", "--now", "vmoor")
    harness.wait_moored(vm)
    client.wait(lambda: fleet.in_mesh(client, vm), harness.PATIENCE, "the endpoint")
    yield vm


def test_enabling_the_agent_is_enough(installed: Machine) -> None:
    """Users, folders, socket and proxy are there; rpm finds its files as it left them."""
    assert [installed.unit_property(unit, "ActiveState") for unit in ACTIVE] == ["active"] * 4
    assert installed.sh("stat -c '%U:%G %a' /etc/vmoor/conf.d").strip() == "root:vmoor 750"
    assert rpm(installed, "--nodeps", "-V", "vmoor") == ""
    assert installed.sh("systemctl --failed --plain --no-legend") == ""


def test_upgrade_and_downgrade(
    fleet: Fleet, client: Machine, installed: Machine, packages: tuple[Path, Path]
) -> None:
    """To a later release and back: a new agent each time, and no request fails."""
    now, later = packages
    with harness.unnoticed(fleet, client, installed):
        for package, release in ((later, "1.later"), (now, "1")):
            agent = harness.process_of(installed)["MainPID"]
            rpm(installed, "--nodeps", "-U", "--oldpackage", package)
            assert rpm(installed, "-q", "--qf", "%{RELEASE}", "vmoor") == release
            assert harness.process_of(installed)["MainPID"] != agent
            harness.beats(fleet, installed)


def test_an_erasure_leaves_and_keeps_what_is_the_operators(
    fleet: Fleet, client: Machine, installed: Machine
) -> None:
    """After `rpm -e` the VM is out of the mesh and no unit runs; of the files, the configuration
    and the states stay, as everywhere with rpm."""
    rpm(installed, "--nodeps", "-e", "vmoor")
    assert fleet.entry(installed) is None
    assert fleet.lease(installed) is None
    client.wait(lambda: not fleet.in_mesh(client, installed), 5, "its Envoy to forget the VM")
    assert harness.units(installed) == []
    assert installed.sh("find /usr /lib -xdev -name '*vmoor*'") == ""
    assert "1500" not in installed.sh("iptables-save -t nat")
    assert installed.sh("ls /etc/vmoor/conf.d").split() != []
