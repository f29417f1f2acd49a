"""OpenBao, which speaks Vault's API: with TLS, a seal and an audit log.

It keeps everything in memory: a seal is survived, an end is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig.errors import RigError
from tests.rig.ground import Ground
from tests.rig.network import ADDRESS
from tests.rig.process import Process

_URL = f"https://{ADDRESS}:8200"
_CONFIG = """\
api_addr = "{url}"
storage "inmem" {{}}
listener "tcp" {{
  address         = "{address}:8200"
  tls_cert_file   = "{certificate}"
  tls_key_file    = "{key}"
}}
audit "file" "rig" {{
  options = {{
    file_path = "{audit}"
  }}
}}
"""


@dataclass(frozen=True)
class OpenBao:
    process: Process
    url: str
    ca: Path
    root_token: str
    unseal_key: str
    audit: Path  # JSON lines; secrets in it are HMACs
    ground: Ground

    def seal(self) -> None:
        self._put("seal", {})

    def unseal(self) -> None:
        self._put("unseal", {"key": self.unseal_key})
        self.process.wait_until(lambda: self.ground.answers(f"{_URL}/v1/sys/health"), 20, "active")

    def _put(self, path: str, body: dict[str, Any]) -> None:
        _put(self.ground, path, body, self.root_token)


def start(ground: Ground) -> OpenBao:
    folder = ground.folder("openbao")
    certificate, key = ground.authority.issue("openbao", [ADDRESS, "127.0.0.1"])
    audit = ground.log_dir / "openbao-audit.log"
    config = folder / "bao.hcl"
    config.write_text(
        _CONFIG.format(url=_URL, address=ADDRESS, certificate=certificate, key=key, audit=audit)
    )
    process = ground.spawn("openbao", [str(ground.binaries.bao), "server", f"-config={config}"])
    # 501: it listens, and is not initialized.
    process.wait_until(lambda: ground.answers(f"{_URL}/v1/sys/health", 501), 30, "listening")
    made = _put(ground, "init", {"secret_shares": 1, "secret_threshold": 1})
    vault = OpenBao(
        process, _URL, ground.authority.path, made["root_token"], made["keys"][0], audit, ground
    )
    vault.unseal()
    return vault


def _put(ground: Ground, path: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"X-Vault-Token": token} if token else {}
    answer = ground.request("PUT", f"{_URL}/v1/sys/{path}", json=body, headers=headers)
    if not answer.ok:
        raise RigError(f"cannot {path} OpenBao: {answer.status_code} {answer.text}")
    content: dict[str, Any] = answer.json() if answer.content else {}
    return content
