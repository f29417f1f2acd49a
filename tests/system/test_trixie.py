"""Debian 13: the package that Debian 12 built, on its Python, libraries and systemd; with what
keeps a machine up to date by itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests import repack
from tests.rig import process
from tests.rig.machine import Machine
from tests.stage import PROJECT, Stage
from tests.system import harness
from tests.system.fleet import Fleet

NEXT = "9.0.0"  # later than any release
UPDATES = 'Unattended-Upgrade::Origins-Pattern { "origin=vmoor"; };\n'  # docs/packages.md
# needrestart leaves all other units alone, or the service itself would be restarted.
OURS = "$nrconf{override_rc}{qr(^(?!vmoor))} = 0;\n"
# As dpkg does it: what runs has the old one.
NEW_LIBC = """\
libc=$(ldd /bin/sh | awk '/libc[.]so/ { print $3 }')
cp -p "$libc" "$libc.new"
mv "$libc.new" "$libc"
"""


@pytest.fixture(scope="module")
def web(stage: Stage, fleet: Fleet, client: Machine, module_vm: Callable[..., Machine]) -> Machine:
    web = module_vm(disk=stage.shop_disk_of("trixie"))
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), harness.PATIENCE, "the endpoint")
    return web


@pytest.fixture
def later(stage: Stage, tmp_path: Path) -> Iterator[str]:
    """The apt source of a repository, made as `make repo` does, with a later version."""
    (deb,) = stage.packages.glob("vmoor_*.deb")
    made = repack.as_version(deb, NEXT, tmp_path)
    folder = stage.packages / "later"
    process.run([str(PROJECT / "packaging/build-repo.sh"), str(folder), str(made)])
    yield "deb [trusted=yes] file:/srv/repo/later/apt ./\n"
    shutil.rmtree(folder)


def test_it_moors_and_no_unit_fails(web: Machine) -> None:
    """From the fleet's text as it is."""
    assert web.sh(". /etc/os-release && echo $VERSION_ID") == "13\n"
    assert web.sh("systemctl --failed --plain --no-legend") == ""


def test_it_is_kept_up_to_date_unnoticed(
    fleet: Fleet, client: Machine, web: Machine, later: str
) -> None:
    """unattended-upgrades installs a later version by its origin, and needrestart restarts the
    agent for a new libc, but not the proxy: no request fails."""
    web.write("/etc/apt/apt.conf.d/52vmoor", UPDATES)
    web.write("/etc/apt/sources.list.d/later.list", later)
    web.write("/etc/needrestart/conf.d/test.conf", OURS)
    with harness.unnoticed(fleet, client, web):
        web.sh("apt-get -qq update && unattended-upgrade --verbose", timeout=120)
        assert web.run("vmoor", "--version").stdout.split()[-1] == NEXT
        harness.beats(fleet, web)
        agent = harness.process_of(web)
        web.sh(NEW_LIBC)
        said = web.sh("needrestart -r a 2>&1")
        assert "systemctl restart vmoor-proxy.service" in said.partition("deferred")[2], said
        assert harness.process_of(web)["MainPID"] != agent["MainPID"]


def test_a_removal_leaves_the_mesh(fleet: Fleet, web: Machine) -> None:
    """With the package go the entry, the units, the processes and the capture rules."""
    web.sh("DEBIAN_FRONTEND=noninteractive apt-get -qq -y remove vmoor", timeout=120)
    assert fleet.entry(web) is None
    assert harness.units(web) == []
    for user in ("vmoor", "istio-proxy"):
        assert web.run("pgrep", "-u", user, check=False).stdout == ""
    assert "1500" not in web.sh("iptables-save -t nat")
