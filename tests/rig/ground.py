"""What every part of the rig stands on: network, programs, certificates, folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import requests

from tests.rig import inside
from tests.rig.build import Binaries
from tests.rig.certs import Authority
from tests.rig.network import Network
from tests.rig.process import Process, path_environment


@dataclass(frozen=True)
class Ground:
    network: Network
    binaries: Binaries
    authority: Authority
    workdir: Path
    log_dir: Path
    _processes: list[Process] = field(default_factory=list)

    def spawn(
        self, name: str, argv: Sequence[str], *, env: Optional[Mapping[str, str]] = None
    ) -> Process:
        """Start a server inside the rig's namespace, with no environment but this."""
        process = Process(
            name,
            argv,
            log=self.log_dir / f"{name}.log",
            ledger=self.network.ledger,
            netns=self.network.netns_name,
            env={**path_environment(), **(env or {})},
            cwd=self.folder(name),
        )
        self._processes.append(process)
        return process

    def stop_all(self) -> None:
        """The last to start first."""
        while self._processes:
            self._processes.pop().stop()

    def folder(self, name: str) -> Path:
        path = self.workdir / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def request(self, method: str, url: str, **more: Any) -> requests.Response:
        return inside.request(self.network.netns_path, method, url, ca=self.authority.path, **more)

    def answers(self, url: str, status: int = 200) -> bool:
        """Whether a GET of url gives this status; False also while nobody listens."""
        try:
            return self.request("GET", url, timeout=2.0).status_code == status
        except requests.RequestException:
            return False
