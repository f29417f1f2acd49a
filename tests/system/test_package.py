"""The package's life on a moored VM under load: nobody who uses the service notices an upgrade,
however it goes; a removal leaves the mesh and the machine as they were."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tests import repack
from tests.rig.machine import Machine
from tests.stage import PROJECT, Stage
from tests.system import harness
from tests.system.fleet import Fleet

APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
NEXT = "9.0.0"  # later than any release
ONCE = "if [ -e /run/kill-dpkg ]; then rm /run/kill-dpkg; kill -KILL $PPID; exit 1; fi"
# Where something of ours could be left behind; not the fleet's own text, nor what dpkg, apt,
# cloud-init and systemd note of everything.
LEFT = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /srv -o -path /var/lib/cloud \
    -o -path /run/cloud-init -o -path /run/log -o -path /var/log \
    -o -path /var/cache/apt -o -path /var/lib/apt \) -prune \
    -o \( -name '*vmoor*' -o -user vmoor -o -user vmoor-exec -o -user istio-proxy \) -print
"""
OF_THE_FLEET = re.compile(
    r"/etc/apt/sources\.list\.d/vmoor\.list|/etc/systemd/system/vmoor\.service\.d(/.*)?"
    r"|/etc/certs|/var/lib/istio(/.*)?|/usr/local/bin/.*"  # istio-sidecar's
)


@pytest.fixture(scope="module")
def ours(stage: Stage) -> str:
    """The path, on a VM, of the package as built."""
    (deb,) = stage.packages.glob("vmoor_*.deb")
    return f"/srv/repo/{deb.name}"


@pytest.fixture(scope="module")
def other(stage: Stage, ours: str) -> Iterator[Callable[..., str]]:
    """Puts a version of the package beside it, where `apt upgrade` does not see it; its path."""
    made: list[Path] = []

    def put(version: str, **scripts: str) -> str:
        deb = stage.packages / Path(ours).name
        made.append(repack.as_version(deb, version, stage.packages, scripts))
        return f"/srv/repo/{made[-1].name}"

    yield put
    for deb in made:
        deb.unlink(missing_ok=True)


def install(vm: Machine, *debs: str, check: bool = True) -> str:
    options = "--allow-downgrades --reinstall"
    return vm.sh(f"{APT} install {options} {' '.join(debs)} 2>&1", check=check, timeout=120)


def version(vm: Machine) -> str:
    return vm.run("vmoor", "--version").stdout.split()[-1]


def pid(vm: Machine) -> str:
    return harness.process_of(vm)["MainPID"]


def test_upgrade_and_downgrade(
    fleet: Fleet, client: Machine, web: Machine, ours: str, other: Callable[..., str]
) -> None:
    """To a later version and back: each runs at once, and no request fails."""
    first, agent = version(web), pid(web)
    with harness.unnoticed(fleet, client, web):
        install(web, other(NEXT))
        assert (version(web), pid(web) != agent) == (NEXT, True)
        harness.beats(fleet, web)
        agent = pid(web)
        install(web, ours)
        assert (version(web), pid(web) != agent) == (first, True)


@pytest.mark.parametrize(
    ("dies_in", "mend"),
    [
        ("postinst", "dpkg --configure -a"),
        ("preinst", "dpkg --configure -a && {apt} install {deb}"),
    ],
)
def test_an_interrupted_upgrade(
    fleet: Fleet, client: Machine, web: Machine, other: Callable[..., str], ours: str,
    dies_in: str, mend: str,
) -> None:  # fmt: skip
    """dpkg is killed before the new files are there, or before they are set up: the machine works
    on, and the command that dpkg itself asks for ends the upgrade."""
    deb = other(NEXT, **{dies_in: ONCE})
    with harness.unnoticed(fleet, client, web):
        web.write("/run/kill-dpkg", "")
        install(web, deb, check=False)
        assert web.sh("test -e /run/kill-dpkg && echo there || echo gone") == "gone\n"
        assert "ok installed" not in web.sh("dpkg-query -Wf '${Status}' vmoor")
        harness.beats(fleet, web)
        web.sh(mend.format(apt=APT, deb=deb), timeout=120)
        assert "ok installed" in web.sh("dpkg-query -Wf '${Status}' vmoor")
        assert version(web) == NEXT
    install(web, ours)


def test_the_journal_explains_events(web: Machine) -> None:
    """`journalctl -x` says what an event means, in words with the event's own names."""
    said = web.run("journalctl", "-x", "-u", "vmoor", "VMOOR_EVENT=service.healthy").stdout
    assert "Subject: Service web is healthy" in said
    assert "Documentation: man:vmoor(8)" in said


def test_what_the_operator_switched_off_stays_off(
    fleet: Fleet, client: Machine, web: Machine, ours: str
) -> None:
    """A masked, and a disabled, agent is neither started nor enabled by an upgrade."""
    for verb, state in (("mask", "masked"), ("disable", "disabled")):
        web.run("systemctl", verb, "--now", "vmoor")
        install(web, ours)
        assert web.sh("systemctl is-enabled vmoor || :").strip() == state
        assert web.unit_property(harness.AGENT, "ActiveState") == "inactive"
        assert web.unit_property(harness.PROXY, "ActiveState") == "inactive"
        web.run("systemctl", "unmask", "vmoor")
        web.run("systemctl", "enable", "--now", "vmoor")
        harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_a_read_only_usr(fleet: Fleet, client: Machine, web: Machine) -> None:
    """The agent starts, beats and reads its configuration anew where /usr is read-only."""
    web.sh("mount --bind /usr /usr && mount -o remount,bind,ro /usr")
    try:
        with harness.unnoticed(fleet, client, web):
            web.sh("! touch /usr/x 2>/dev/null")
            web.run("systemctl", "restart", "vmoor")
            harness.beats(fleet, web)
            web.run("systemctl", "reload", "vmoor")
    finally:
        web.run("umount", "--lazy", "/usr")  # the agent has it still


def test_a_removal_leaves_and_keeps_what_is_the_operators(
    fleet: Fleet, client: Machine, web: Machine, ours: str
) -> None:
    """After `apt remove` the VM is out of the mesh, no unit, process or capture rule is left; the
    configuration is, and the next installation moors the VM by it."""
    web.sh(f"{APT} remove vmoor", timeout=120)
    assert fleet.entry(web) is None
    assert fleet.lease(web) is None
    client.wait(lambda: not fleet.in_mesh(client, web), 5, "its Envoy to forget the VM")
    assert harness.units(web) == []
    assert web.sh("systemctl --failed --plain --no-legend") == ""
    for user in ("vmoor", "vmoor-exec", "istio-proxy"):
        assert web.run("pgrep", "-u", user, check=False).stdout == ""
    assert "1500" not in web.sh("iptables-save -t nat")
    assert web.sh("systemctl is-active web").strip() == "active"
    assert web.sh("ls /etc/vmoor/conf.d").split() != []
    install(web, ours)
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_a_purge_leaves_nothing_but_the_users(vm: Callable[..., Machine], ours: str) -> None:
    """After `apt purge` no file of ours, or of our users, is left anywhere; the users are. With
    its configuration written anew the package moors the VM again."""
    purged = vm(secret_id="plain")
    harness.wait_moored(purged)
    purged.sh("tar -C / -cf /root/kept.tar etc/vmoor")
    purged.sh(f"{APT} purge vmoor", timeout=120)
    left = [line for line in purged.sh(LEFT).splitlines() if not OF_THE_FLEET.fullmatch(line)]
    assert left == []
    for user in ("vmoor", "vmoor-exec", "istio-proxy"):
        purged.run("getent", "passwd", user)
    assert purged.sh("systemctl --failed --plain --no-legend") == ""
    install(purged, ours)
    # What autopkgtest would run on a fresh machine.
    purged.run("sh", "-s", input=(PROJECT / "debian/tests/service").read_text())
    purged.sh("tar -C / -xf /root/kept.tar")
    harness.wait_moored(purged)
