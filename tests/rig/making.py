"""How a program gets into the cache: made under another name, renamed when it's whole.

Progress goes to stdout, because a first run takes minutes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable, Optional

from tests.rig import prerequisites
from tests.rig.errors import RigError

CACHE = Path(os.environ.get("VMOOR_CACHE", "~/.cache/vmoor")).expanduser() / "rig"

_HEARTBEAT_S = 20.0


def key(*parts: bytes) -> str:
    """What a cached thing is made from, as a part of its path."""
    return hashlib.sha256(b"".join(parts)).hexdigest()[:12]


def make(target: Path, name: str, make: Callable[[Path], None]) -> None:
    """Let make write to a temporary name beside target, then put that in place."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}")
    started = time.monotonic()
    print(f"{name}: started", flush=True)
    make(temporary)
    temporary.rename(target)
    print(f"{name}: done in {_elapsed(started)}", flush=True)


def watch(
    name: str,
    argv: Sequence[str],
    *,
    cwd: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
) -> None:
    """Run a long command with a sign of life on stdout; RigError with its output if it fails."""
    started = time.monotonic()
    with subprocess.Popen(
        argv, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        while True:
            try:
                output, _ = child.communicate(timeout=_HEARTBEAT_S)
                break
            except subprocess.TimeoutExpired:
                print(f"{name}: {_elapsed(started)} so far", flush=True)
    if child.returncode != 0:
        raise RigError(f"cannot build {name}: {output[-2000:].strip()}")


def pip_install(package: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)  # of an interrupted build
    python = sys.executable
    if importlib.util.find_spec("pip") is None:
        prerequisites.apt_install(["python3-pip"])
        python = "/usr/bin/python3"
    argv = [python, "-m", "pip", "install", "--no-deps", "--disable-pip-version-check"]
    watch(package, [*argv, "--root-user-action=ignore", "--target", str(target), package])


def _elapsed(since: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - since), 60)
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
