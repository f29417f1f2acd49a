"""Files that seem to be root's, whoever runs the tests."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, tuple[int, int]]:
    """Owner and mode by path, below tmp_path; everything else is root's, as on a sound system."""
    told: dict[str, tuple[int, int]] = {}
    real = Path.lstat

    def lstat(self: Path) -> os.stat_result:
        found = real(self)
        uid, mode = told.get(str(self), (0, 0o755))
        kind = stat.S_IFMT(found.st_mode)
        return os.stat_result((kind | mode, *found[1:4], uid, *found[5:10]))

    monkeypatch.setattr(Path, "lstat", lstat)
    return told
