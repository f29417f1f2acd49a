"""The rig: everything of a mesh but the VMs, in a network namespace without a route out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

import requests

from tests.rig import apiserver, build, etcd, istiod, openbao, prerequisites
from tests.rig.certs import Authority
from tests.rig.faults import FaultProxy
from tests.rig.ground import Ground
from tests.rig.network import Network
from tests.rig.process import path_environment, run


class Rig:
    """Context manager. Vault and the cluster are empty: who uses the rig sets them up."""

    def __init__(
        self, mesh_config: Optional[Mapping[str, Any]] = None, log_dir: Optional[Path] = None
    ) -> None:
        """mesh_config replaces keys of istiod.DEFAULT_MESH_CONFIG.

        Logs go to log_dir and stay there; without one they are removed, unless the rig is left
        by an exception.
        """
        self._mesh_config = mesh_config or {}
        self._keep_logs = log_dir is not None
        self._log_dir = log_dir
        self._stack = ExitStack()

    def __enter__(self) -> Rig:  # noqa: PYI034
        prerequisites.check(build.CACHE, built=build.locate().complete)
        prerequisites.install()
        self.binaries = build.build()
        self.workdir = Path(tempfile.mkdtemp(prefix="vmoor-rig-"))
        self.log_dir = self._log_dir or Path(tempfile.mkdtemp(prefix="vmoor-rig-logs-"))
        self.log_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException as e:
            self.__exit__(type(e), e, e.__traceback__)
            raise
        return self

    def _start(self) -> None:
        self._stack.callback(shutil.rmtree, self.workdir, ignore_errors=True)
        self.network = self._stack.enter_context(Network())
        self.network.ledger.directory(self.workdir)
        (self.workdir / "certs").mkdir(mode=0o700)
        self.authority = Authority(self.workdir / "certs")
        self.ground = Ground(
            self.network, self.binaries, self.authority, self.workdir, self.log_dir
        )
        self._link_programs()
        self._stack.callback(self.ground.stop_all)
        with ThreadPoolExecutor(2) as pool:
            vault = pool.submit(openbao.start, self.ground)
            cluster = pool.submit(self._start_cluster)
            cluster.result()
            self.vault = vault.result()

    def _start_cluster(self) -> None:
        etcd.start(self.ground)
        self.kube = apiserver.start(self.ground)
        self.istiod = istiod.start(self.ground, self.kube, self.kubectl, self._mesh_config)

    def _link_programs(self) -> None:
        """The names that documentation and administrators use."""
        programs = {
            "kubectl": self.binaries.kubectl,
            "bao": self.binaries.bao,
            "vault": self.binaries.bao,
        }
        self.bin = self.ground.folder("bin")
        for name, path in programs.items():
            (self.bin / name).symlink_to(path)

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._stack.close()
        if kind is None and not self._keep_logs:
            shutil.rmtree(self.log_dir)
        else:
            print(f"logs of the rig: {self.log_dir}", flush=True)

    @property
    def env(self) -> dict[str, str]:
        """An administrator's environment: kubectl, bao and vault on PATH, logged in."""
        env = path_environment(self.bin)
        env["HOME"] = str(self.workdir)  # both clients write into it
        env["KUBECONFIG"] = str(self.kube.kubeconfig)
        if hasattr(self, "vault"):
            for product in ("BAO", "VAULT"):
                env[f"{product}_ADDR"] = self.vault.url
                env[f"{product}_CACERT"] = str(self.vault.ca)
                env[f"{product}_TOKEN"] = self.vault.root_token
        return env

    def run(self, *argv: str, input: Optional[str] = None, timeout: float = 60.0) -> str:
        """An administrator's command inside the rig's network; its stdout."""
        return run(argv, netns=self.network.netns_name, input=input, env=self.env, timeout=timeout)

    def kubectl(self, *args: str, input: Optional[str] = None) -> str:
        return self.run(str(self.bin / "kubectl"), *args, input=input)

    def bao(self, *args: str, input: Optional[str] = None) -> str:
        return self.run(str(self.bin / "bao"), *args, input=input)

    def http(self, method: str, url: str, **more: Any) -> requests.Response:
        """A request from inside the rig's network; keywords are those of requests."""
        return self.ground.request(method, url, **more)

    def fault_proxy(self, target: str, port: int = 0) -> FaultProxy:
        """A context manager; target is kube.url or vault.url."""
        return FaultProxy(self.network, self.authority, target, port)
