"""What the tests believe of their VMs: they boot, are set up, keep their disk and die at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rig import build, ledger, machine, network, process, repository, root, sidecar
from tests.rig.errors import RigError

USER_DATA = """\
## template: jinja
#cloud-config
write_files:
  - path: /etc/wrapped
    content: "{{ ds.meta_data.vmoor_wrap }}"
apt: {sources: {rig: {source: "deb [trusted=yes] file:/srv/repo ./"}}}
packages: [trivial]
runcmd:
  - [apt-get, install, -y, /srv/repo/other.deb]
  - [sh, -c, "cat /usr/share/trivial /usr/share/other > /root/RUNCMD"]
"""


@pytest.fixture(scope="module")
def disk() -> root.Disk:
    return root.debian()


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    for name in ("trivial", "other"):
        tree = tmp_path_factory.mktemp(name)
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: 1\nArchitecture: all\nDescription: one file\n"
            "Maintainer: rig <rig@localhost>\n"
        )
        (tree / "usr/share").mkdir(parents=True)
        (tree / "usr/share" / name).write_text("installed\n")
        process.run(["dpkg-deb", "--build", str(tree), str(folder / f"{name}.deb")])
    repository.index(folder)
    return folder


@pytest.fixture(scope="module")
def net() -> Iterator[network.Network]:
    with network.Network() as net:
        yield net


@pytest.fixture(scope="module")
def vm(
    net: network.Network, disk: root.Disk, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[machine.Machine]:
    with machine.Machine(
        net, "vm-1", "198.18.0.11", disk=disk, workdir=tmp_path_factory.mktemp("vms"),
        packages=packages, user_data=USER_DATA, meta_data={"vmoor_wrap": "hvs.token"},
    ) as vm:  # fmt: skip
        began = time.monotonic()
        vm.boot()
        booted = time.monotonic() - began
        vm.wait_cloud_init()
        print(f"boot {booted:.2f} s, cloud-init done {time.monotonic() - began:.2f} s")
        yield vm


def test_cloud_init_sets_the_vm_up(vm: machine.Machine) -> None:
    """user-data's files are written, its packages installed, instance metadata is filled in."""
    assert vm.read("/etc/wrapped") == "hvs.token"
    assert vm.read("/root/RUNCMD") == "installed\n" * 2
    assert vm.sh("hostname").strip() == "vm-1"


def test_it_is_a_healthy_debian(vm: machine.Machine) -> None:
    """No unit fails; the bus, polkit, sshd and iptables work."""
    assert vm.run("systemctl", "is-system-running", "--wait", check=False).stdout == "running\n", (
        vm.sh("systemctl --failed")
    )
    vm.run("pkaction")  # starts polkit by its bus name
    assert vm.sh("systemctl is-active dbus polkit ssh").split() == ["active"] * 3
    with vm.socket() as ssh:
        ssh.settimeout(5)
        ssh.connect(("198.18.0.11", 22))
        assert ssh.recv(4) == b"SSH-"
    for command in ("iptables-nft", "iptables-legacy"):
        vm.sh(f"{command} -t nat -A OUTPUT -p tcp --dport 9 -j REDIRECT --to-ports 10")
        assert "--dport 9" in vm.sh(f"{command}-save -t nat")


def test_run_enters_as_a_user_and_tells_failures(vm: machine.Machine) -> None:
    """Commands run as the user asked for; a failing one raises with what it wrote."""
    assert vm.run("id", "-un", user="nobody").stdout == "nobody\n"
    assert vm.run("cat", input="typed").stdout == "typed"
    with pytest.raises(RigError, match="exit 3\nwhy"):
        vm.sh("echo why >&2; exit 3")


def test_write_sets_mode_and_owner(vm: machine.Machine) -> None:
    """A file written by a test has the mode and owner asked for, its directories are made."""
    vm.write("/srv/deep/file", "text", 0o640, "root:daemon")
    assert vm.sh("stat -c '%a %U:%G' /srv/deep/file /srv/deep").split("\n")[:2] == [
        "640 root:daemon",
        "755 root:root",
    ]


def test_endpoints_are_read_from_envoys_admin_port(vm: machine.Machine) -> None:
    """http_get reaches the VM's loopback; only endpoints in use are named."""
    vm.write(
        "/srv/www/clusters",
        "outbound|80||web.shop.mesh::198.18.0.12:8080::health_flags::healthy\n"
        "outbound|80||web.shop.mesh::198.18.0.12:8080::weight::1\n"
        "outbound|80||web.shop.mesh::198.18.0.13:8080::health_flags::/failed_eds_health\n"
        "outbound|80||other.shop.mesh::198.18.0.14:8080::health_flags::healthy\n",
    )
    vm.sh(
        "systemd-run --unit=www -p WorkingDirectory=/srv/www python3 -c 'import http.server as h,"
        ' socketserver as s; s.TCPServer(("127.0.0.1", 15000), h.SimpleHTTPRequestHandler)'
        ".serve_forever()'"
    )
    vm.wait(lambda: vm.endpoints("web.shop.mesh") == {"198.18.0.12:8080"}, 5, "the endpoint")
    assert vm.unit_property("www.service", "ActiveState") == "active"
    vm.sh("systemctl stop www")


def test_a_wait_in_vain_shows_the_journal(vm: machine.Machine) -> None:
    """The error names what was waited for and ends with the journal."""
    vm.sh("logger look-here")
    with pytest.raises(RigError, match=r"(?s)vm-1: the moon.*look-here"):
        vm.wait(lambda: False, 0.1, "the moon")


def test_reboot_keeps_the_disk_only(vm: machine.Machine) -> None:
    """Files and the journal survive a reboot; the boot id and iptables rules do not."""
    vm.sh("iptables-nft -A INPUT -p tcp --dport 7 -j ACCEPT")
    boot_id = vm.read("/proc/sys/kernel/random/boot_id"), vm.pid1
    vm.reboot()
    vm.wait_cloud_init()
    assert (vm.read("/proc/sys/kernel/random/boot_id"), vm.pid1) != boot_id
    assert vm.read("/root/RUNCMD") == "installed\n" * 2
    assert "dport 7" not in vm.sh("iptables-nft-save")
    assert "look-here" in vm.journal()


def test_power_cut_ends_everything_at_once(vm: machine.Machine, tmp_path: Path) -> None:
    """Within 2 s no process and no cgroup is left; the disk is; it boots again."""
    vm.write("/root/before", "the cut")
    began = time.monotonic()
    vm.power_cut()
    took = time.monotonic() - began
    print(f"power cut {took:.3f} s")
    assert took < 2
    assert not vm.alive
    assert process.run(["ip", "netns", "pids", vm.port.netns_name]) == ""
    assert not list(Path("/sys/fs/cgroup").glob(f"*/vmoor-rig-{vm.port.netns_name[6:]}"))
    vm.collect_logs(tmp_path)
    assert "look-here" in (tmp_path / "vm-1.journal.txt").read_text()
    vm.boot()
    assert vm.read("/root/before") == "the cut"
    vm.poweroff()
    assert not vm.alive


def test_several_boot_at_once(
    net: network.Network, disk: root.Disk, packages: Path, tmp_path: Path
) -> None:
    """boot() from threads; each has its own machine id and reaches the other."""
    vms = [
        machine.Machine(
            net, f"par-{i}", f"198.18.0.2{i}", disk=disk, workdir=tmp_path, packages=packages,
            user_data="#cloud-config\n{}\n",
        ) for i in range(2)
    ]  # fmt: skip
    with vms[0], vms[1]:
        threads = [threading.Thread(target=vm.boot) for vm in vms]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({vm.read("/etc/machine-id") for vm in vms}) == 2
        vms[0].run("ping", "-c1", "-W2", vms[1].address)


@dataclass(frozen=True)
class Parts:
    pilot_agent: Path
    envoy: Path
    bootstrap_template: Path


def test_a_disk_can_hold_the_sidecar_package(
    net: network.Network,
    disk: root.Disk,
    packages: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VM from the layered disk has Istio's paths and user; istio.service does not start."""
    monkeypatch.setattr(build, "CACHE", tmp_path / "cache")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nid -gn\n")
    program.chmod(0o755)
    deb = sidecar.package(Parts(program, program, program))
    layered = root.with_package(disk, deb)
    assert root.with_package(disk, deb) == layered
    with machine.Machine(
        net, "layered", "198.18.0.30", disk=layered, workdir=tmp_path, packages=packages,
        user_data="#cloud-config\n{}\n",
    ) as vm:  # fmt: skip
        vm.boot()
        assert vm.run("pilot-agent", user="istio-proxy").stdout == "istio-proxy\n"
        assert vm.sh("stat -c %a:%U:%G /usr/local/bin/envoy").strip() == "2755:root:istio-proxy"
        assert vm.read("/var/lib/istio/envoy/envoy_bootstrap_tmpl.json") == program.read_text()
        assert vm.unit_property("istio.service", "ActiveState") == "inactive"
        assert vm.unit_property("istio.service", "LoadState") == "loaded"


DIES = """\
import sys
from pathlib import Path
from tests.rig import machine, network, root
net = network.Network().__enter__()
vm = machine.Machine(net, "dies", "198.18.0.9", disk=root.debian(), workdir=Path(sys.argv[1]),
                     packages=Path(sys.argv[1]), user_data="#cloud-config\\n{}\\n")
vm.boot()
print(vm.pid1, flush=True)
sys.stdin.read()
"""


def test_a_killed_test_process_takes_its_vms_along(tmp_path: Path) -> None:
    """SIGKILL of the process that booted it ends the whole VM, without any cleanup code."""
    with subprocess.Popen(
        [sys.executable, "-c", DIES, str(tmp_path)], text=True, cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as victim:  # fmt: skip
        assert victim.stdout is not None
        pid1 = int(victim.stdout.readline())
        victim.kill()
    process.wait_until(lambda: not Path(f"/proc/{pid1}").exists(), 5, "the VM's PID 1 to end")
    ledger.sweep()
