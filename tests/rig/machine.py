"""A VM of the test mesh: boots from a shared disk, is set up by cloud-init, is looked into.

What a test sees of it, it sees from outside (the test's own sockets in the VM's network) or by
commands as an administrator would type them; nothing in the VM knows of the rig.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Callable, Optional

from tests.rig import container, inside, network, process, seed
from tests.rig.errors import RigError
from tests.rig.root import Disk

ENVOY_ADMIN = 15000
_ENDPOINT = re.compile(r"^([^:\n]+)::([0-9.]+:[0-9]+)::health_flags::healthy$", re.MULTILINE)
_WRITE = (
    'mkdir -p "$(dirname "$1")" && umask 077 && cat > "$1.rig" && chmod "$2" "$1.rig" && '
    'chown "$3" "$1.rig" && mv "$1.rig" "$1"'
)


class Machine:
    """Context manager; boot() is the caller's, so that several can boot at once from threads."""

    def __init__(
        self,
        net: network.Network,
        name: str,
        address: str,
        *,
        disk: Disk,
        workdir: Path,
        packages: Path,
        user_data: str,
        meta_data: Optional[Mapping[str, str]] = None,
        vendor_data: str = "",
        machine_id: str = "",
    ) -> None:
        """`packages` is /srv/repo inside; `meta_data` joins instance-id and local-hostname."""
        self.name = name
        self.address = address
        self.folder = workdir / name
        self._net = net
        self._container: Optional[container.Container] = None
        self._upper = self.folder / "upper"
        self._upper.mkdir(parents=True)
        seed.identity(self._upper, name, machine_id, network.ADDRESS)
        facts = {"instance-id": f"iid-{name}", "local-hostname": name, **(meta_data or {})}
        seed.nocloud(self._upper, user_data, facts, vendor_data)
        self.port = net.attach(name, address)
        self._used_port = False
        self._plan = container.Plan(
            unique=f"{net.rig_id}-{name}", hostname=name, disk=disk, folder=self.folder,
            packages=packages, netns=self.port.netns_path,
        )  # fmt: skip

    def __enter__(self) -> Machine:  # noqa: PYI034
        return self

    def __exit__(self, *_: object) -> None:
        if self.alive:
            self._running.kill()

    # Life and death

    @property
    def alive(self) -> bool:
        return self._container is not None and self._container.alive

    @property
    def _running(self) -> container.Container:
        if self._container is None:
            raise RigError(f"{self.name} was never booted")
        return self._container

    @property
    def pid1(self) -> int:
        """PID 1 of the VM, as the host counts."""
        if not self.alive or (pid := self._running.pid1()) is None:
            raise RigError(f"{self.name} is not running")
        return pid

    def boot(self) -> None:
        """Returns when the VM's systemd takes commands, long before cloud-init is done."""
        if self._used_port:
            # Or iptables rules and half-open connections would survive the power cut.
            self.port.close()
            self.port.create()
        self._used_port = True
        # Always the same, or the neighbours' ARP caches would miss a machine that comes back.
        octets = "".join(f":{int(octet):02x}" for octet in self.address.split("."))
        link = ["ip", "-n", self.port.netns_name, "link", "set", "eth0", "address"]
        process.run([*link, f"02:76{octets}"])
        self._container = container.Container(self._plan, self._net.ledger)
        self._container.wait_start()

    def wait_cloud_init(self, timeout: float = 60.0) -> None:
        """RigError as well when one of cloud-init's modules failed."""
        result = Path(f"/proc/{self.pid1}/root/run/cloud-init/result.json")
        self.wait(result.exists, timeout, "cloud-init to be done")
        errors = json.loads(result.read_text())["v1"]["errors"]
        if errors:
            raise RigError(f"cloud-init of {self.name} failed: {errors}{self._tail()}")

    def poweroff(self, timeout: float = 60.0) -> None:
        self._stop("poweroff", timeout)

    def reboot(self, timeout: float = 60.0) -> None:
        self._stop("reboot", timeout)
        self.boot()

    def _stop(self, verb: str, timeout: float) -> None:
        self.run("systemctl", verb, "--no-block")
        try:
            self._running.wait_end(timeout)
        except RigError as error:
            raise RigError(f"cannot {verb} {self.name}: {error}{self._tail()}") from error

    def power_cut(self) -> None:
        self.port.link_down()
        self._running.kill()

    def freeze(self) -> None:
        """Stop every process of it, as a hypervisor pauses a VM; but time goes on."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: int) -> None:
        mine = Path(f"/proc/{self.pid1}/ns/pid").readlink()
        for _ in range(2):  # those that were born meanwhile
            for process_ in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if (process_ / "ns/pid").readlink() == mine:
                        os.kill(int(process_.name), number)

    def kill_link(self) -> None:
        self.port.link_down()

    # Inside, as an administrator

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: Optional[str] = None,
        user: Optional[str] = None,
        timeout: float = 60.0,
    ) -> CompletedProcess[str]:
        """RigError with what the command wrote, if `check` and it fails."""
        # Nothing is left behind by a timeout: nsenter's child goes when nsenter is killed.
        enter = ["nsenter", "-t", str(self.pid1), "-m", "-u", "-i", "-n", "-p", "-C", "--",
                 "setpriv", "--pdeathsig", "KILL", "--reset-env"]  # fmt: skip
        if user is not None:
            enter += [f"--reuid={user}", f"--regid={self._gid(user)}", "--init-groups"]
        done = subprocess.run(
            [*enter, "--", "env", "LANG=C.UTF-8", *argv], text=True, capture_output=True,
            check=False, timeout=timeout, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            stdin=subprocess.DEVNULL if input is None else None, input=input,
        )  # fmt: skip
        if check and done.returncode:
            said = f"exit {done.returncode}\n{done.stdout}{done.stderr}"
            raise RigError(f"{self.name}: {' '.join(argv)}: {said}")
        return done

    def sh(self, script: str, *, check: bool = True, timeout: float = 60.0) -> str:
        return self.run("sh", "-euc", script, check=check, timeout=timeout).stdout

    def write(self, path: str, text: str, mode: int = 0o644, owner: str = "root:root") -> None:
        """At once, by a rename; missing directories are made."""
        self.run("sh", "-c", _WRITE, "sh", path, f"{mode:o}", owner, input=text)

    def read(self, path: str) -> str:
        return self.run("cat", path).stdout

    def unit_property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, unit: Optional[str] = None) -> str:
        """All boots of this VM, also while it is off."""
        only = [] if unit is None else [f"_SYSTEMD_UNIT={unit}", "+", f"UNIT={unit}"]
        folder = self._upper / "var/log/journal"
        argv = ["journalctl", "-q", "-o", "short-precise", "-D", str(folder), *only]
        return process.run(argv) if folder.exists() else ""

    def _gid(self, user: str) -> str:
        for line in Path(f"/proc/{self.pid1}/root/etc/passwd").read_text().splitlines():
            fields = line.split(":")
            if fields[0] == user:
                return fields[3]
        raise RigError(f"{self.name} has no user {user}")

    # Seen from the VM's network, fast enough to poll every 5 ms

    def socket(self) -> socket.socket:
        """A TCP socket of this process in the VM's network: it stays where it was made."""
        return inside.call(self.port.netns_path, socket.socket)

    def http_get(
        self,
        port: int,
        path: str = "/",
        *,
        host: str = "127.0.0.1",
        headers: Optional[Mapping[str, str]] = None,
        timeout: float = 5.0,
        method: str = "GET",
    ) -> tuple[int, str]:
        """Status and body; OSError or HTTPException as they come. `host` is an IPv4 address."""
        connection = http.client.HTTPConnection(host, port)
        connection.sock = self.socket()
        try:
            connection.sock.settimeout(timeout)
            connection.sock.connect((host, port))
            connection.request(method, path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def curl_envoy(self, path: str) -> str:
        status, body = self.http_get(ENVOY_ADMIN, path)
        if status != 200:
            raise RigError(f"{self.name}: Envoy answers {status} to {path}: {body}")
        return body

    def endpoints(self, cluster: str) -> set[str]:
        """IP:PORT that Envoy would use now in clusters whose name contains `cluster`."""
        found: list[tuple[str, str]] = _ENDPOINT.findall(self.curl_envoy("/clusters"))
        return {endpoint for name, endpoint in found if cluster in name}

    def wait(
        self, predicate: Callable[[], object], timeout: float, what: str, period: float = 0.005
    ) -> float:
        """Seconds until `predicate` was true; refused or reset connections mean not yet."""
        began = time.monotonic()

        def holds() -> bool:
            try:
                return bool(predicate())
            except (ConnectionError, http.client.HTTPException):
                return False

        try:
            process.wait_until(holds, timeout, f"{self.name}: {what}", period=period)
        except RigError as error:
            raise RigError(f"{error}{self._tail()}") from error
        return time.monotonic() - began

    # What is left to read

    def collect_logs(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.journal.txt").write_text(self.journal())
        console = self.folder / "console.log"
        if console.exists():
            shutil.copyfile(console, folder / f"{self.name}.console.txt")

    def _tail(self) -> str:
        return f"\n--- journal of {self.name}\n" + "\n".join(self.journal().splitlines()[-40:])
