"""Another version of the built .deb, for what needs two: upgrades, also those that go wrong."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from tests.rig.process import run

MODULES = "usr/lib/python3/dist-packages/vmoor"


def as_version(
    deb: Path, version: str, folder: Path, scripts: Optional[Mapping[str, str]] = None
) -> Path:
    """The same content, whose `vmoor --version` says `version`, written into `folder`.

    `scripts` are lines that maintainer scripts (preinst, postinst, ...) begin with.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        run(["dpkg-deb", "--raw-extract", str(deb), str(tree)])
        _replace(tree / "DEBIAN/control", r"^Version: .*$", f"Version: {version}-1")
        _replace(tree / MODULES / "__init__.py", r'(?<=^__version__ = ").*(?="$)', version)
        for name, lines in (scripts or {}).items():
            script = tree / "DEBIAN" / name
            rest = script.read_text().partition("\n")[2] if script.exists() else ""
            script.write_text(f"#!/bin/sh\n{lines}\n{rest}")
            script.chmod(0o755)
        made = folder / f"vmoor_{version}-1_all.deb"
        run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(made)])
    return made


def _replace(path: Path, pattern: str, text: str) -> None:
    replaced, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
    assert count == 1, (path, pattern)
    path.write_text(replaced)
