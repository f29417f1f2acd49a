"""A real Consul agent that is its own server: on this machine's loopback, or in a VM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import requests

from tests.rig import build, prerequisites
from tests.rig.machine import Machine
from tests.rig.process import wait_until

_START_S = 30.0

UNIT = """\
[Service]
ExecStart=/usr/local/bin/consul agent -config-dir=/etc/consul.d
"""


def config(data: str, **ports: int) -> dict[str, Any]:
    """One server that is its own leader within two seconds and knows nobody else."""
    off = dict.fromkeys(("dns", "serf_wan", "grpc", "https"), -1)
    return {
        "server": True, "bootstrap_expect": 1, "node_name": "here", "data_dir": data,
        "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "disable_update_check": True,
        "performance": {"raft_multiplier": 1}, "log_level": "warn", "ports": {**off, **ports},
        "leave_on_terminate": False,
    }  # fmt: skip


class LocalAgent:
    """Context manager: an agent on loopback ports that are free; what it knows outlives kills."""

    def __init__(self, folder: Path, token: str = "", server: Optional[LocalAgent] = None) -> None:
        """`token` = with ACLs that refuse whatever comes without it.

        With `server` it is none itself, as on most machines.
        """
        self._folder = folder
        self._name = "client" if server else "here"
        self._token = token
        self._ports = {name: _free_port() for name in ("http", "server", "serf_lan")}
        self.url = f"http://127.0.0.1:{self._ports['http']}"
        content = config(str(folder / "data"), **self._ports)
        if server:
            del content["bootstrap_expect"]
            join = [f"127.0.0.1:{server._ports['serf_lan']}"]
            content.update(server=False, node_name=self._name, retry_join=join)
        if token:
            tokens = {"master": token, "agent": token}
            content["acl"] = {"enabled": True, "default_policy": "deny", "tokens": tokens}
        (folder / "consul.json").write_text(json.dumps(content))
        self._stack = ExitStack()
        self._running: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> LocalAgent:  # noqa: PYI034
        self._log = self._stack.enter_context((self._folder / "log").open("ab"))
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._running is not None:
            self.kill()
        self._stack.close()

    def start(self) -> None:
        argv = ["setpriv", "--pdeathsig", "KILL", "--", str(program()), "agent"]
        self._running = subprocess.Popen(
            [*argv, f"-config-file={self._folder / 'consul.json'}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip

        def ready() -> bool:
            try:
                known = self.ask("GET", f"/v1/health/node/{self._name}")
            except requests.RequestException:
                return False
            return known.ok and bool(known.json())

        wait_until(ready, _START_S, f"Consul: {self._folder / 'log'}")

    def kill(self) -> None:
        assert self._running is not None
        os.kill(self._running.pid, signal.SIGKILL)
        self._running.wait()
        self._running = None

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        headers = {"X-Consul-Token": self._token} if self._token else {}
        return requests.request(method, self.url + path, json=body, headers=headers, timeout=10)

    def put(self, path: str, body: Any = None) -> None:
        answer = self.ask("PUT", path, body)
        assert answer.ok, (path, answer.status_code, answer.text)


def program() -> Path:
    """The binary, built with the rest of the rig when it is not in the cache."""
    prerequisites.install()
    return build.build().consul


def install(vm: Machine) -> None:
    """Run an agent in a booted VM as consul.service; what it declares stands in /etc/consul.d."""
    inside = Path(f"/proc/{vm.pid1}/root/usr/local/bin/consul")
    shutil.copy(program(), inside)
    vm.write("/etc/consul.d/agent.json", json.dumps(config("/var/lib/consul")))
    vm.write("/etc/systemd/system/consul.service", UNIT)
    vm.sh("systemctl daemon-reload; systemctl start consul")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
