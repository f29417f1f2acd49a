"""The packages, built once, and unpacked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import stage
from tests.rig import process


@pytest.fixture(scope="session")
def deb() -> Path:
    return stage.built_package()


@pytest.fixture(scope="session")
def deb_root(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("deb")
    process.run(["dpkg-deb", "--extract", str(deb), str(root)])
    return root
