"""The same checkout gives the same bytes, wherever and whenever it is built."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tests.rig import process
from tests.stage import PROJECT


def test_the_deb_again(deb: Path, tmp_path: Path) -> None:
    """A second build of the .deb in another folder, later, by another user's settings."""
    assert build_again("deb", tmp_path) == digests(deb)


def test_the_rpms_again(rpms: Path, tmp_path: Path) -> None:
    """The same for the .rpm and its source."""
    assert build_again("rpm", tmp_path) == digests(*rpms.glob("*.rpm"))


def build_again(kind: str, folder: Path) -> dict[str, str]:
    elsewhere = folder / "a-longer-path-than-the-first"
    elsewhere.mkdir()
    environment = {**os.environ, "TMPDIR": str(elsewhere), "TZ": "Asia/Tokyo"}
    script = f'umask 077; exec "$1/packaging/build-{kind}.sh" "$2"'
    argv = ["sh", "-c", script, "sh", str(PROJECT), str(folder / "out")]
    process.run(argv, env=environment, timeout=600)
    return digests(*(folder / "out").glob(f"*.{kind}"))


def digests(*paths: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
