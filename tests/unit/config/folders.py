"""Configuration folders for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Union

from vmoor.config.load import load
from vmoor.errors import Misconfigured

GOOD = """\
vault: {address: "https://vault.example:8200", auth: {method: approle, role_id: shop-web}}
mesh: secret/vmoor/mesh-a
workload: {namespace: shop, name: web, service_account: web}
services:
  web: {port: 8080, unit: web.service, checks: [{http: /healthz}]}
"""

PEM = "-----BEGIN CERTIFICATE-----\nMIIBVmFy\n-----END CERTIFICATE-----\n"


def facts() -> dict[str, Any]:
    return {
        "version": 1,
        "kubernetes": {"server": ["https://198.18.0.1:6443"], "ca": PEM},
        "istio": {
            "discovery": ["198.18.0.1:15012"],
            "san": "istiod.istio-system.svc",
            "root_ca": PEM,
        },
    }


def good(**changes: Any) -> str:
    """The good configuration with other values for whole top-level keys, as JSON (it is YAML)."""
    plain: dict[str, Any] = {
        "vault": {"address": "https://v:8200", "auth": {"method": "approle", "role_id": "r"}},
        "mesh": "secret/vmoor/mesh-a",
        "workload": {"namespace": "shop", "name": "web", "service_account": "web"},
    }
    plain.update(changes)
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in plain.items())


def write(root: Path, **files: Union[str, bytes]) -> Path:
    """Files of conf.d by their names without the ending; `vmoor` is vmoor.yaml itself."""
    (root / "conf.d").mkdir(exist_ok=True)
    for name, content in files.items():
        path = root / "vmoor.yaml" if name == "vmoor" else root / "conf.d" / f"{name}.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def told(root: Path) -> list[str]:
    """The problems, with file names instead of whole paths."""
    try:
        load(root)
    except Misconfigured as e:
        return [p.replace(f"{root}/conf.d/", "").replace(f"{root}/", "") for p in e.problems]
    return []
