"""What makes one VM of a shared root: its identity, and the NoCloud seed that sets it up.

Writes into the VM's own upper directory before it boots; never into a running VM.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

SEED = "var/lib/cloud/seed/nocloud"


def identity(tree: Path, name: str, machine_id: str, nameserver: str) -> None:
    """A machine-id that is there before PID 1 starts keeps this from being a first boot."""
    _write(tree / "etc/machine-id", f"{machine_id or uuid.uuid4().hex}\n")
    _write(tree / "etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
    _write(tree / "etc/resolv.conf", f"nameserver {nameserver}\n")


def nocloud(
    tree: Path, user_data: str, meta_data: Mapping[str, str], vendor_data: str = ""
) -> None:
    # 0600: a wrapping token in them must not be readable by every process of the VM.
    _write(tree / SEED / "meta-data", json.dumps(dict(meta_data)), 0o600)
    _write(tree / SEED / "user-data", user_data, 0o600)
    if vendor_data:
        _write(tree / SEED / "vendor-data", vendor_data, 0o600)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
