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
def rpms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the .rpm and its source."""
    folder = tmp_path_factory.mktemp("rpms")
    process.run([str(stage.PROJECT / "packaging/build-rpm.sh"), str(folder)], timeout=600)
    return folder


@pytest.fixture(scope="session")
def rpm(rpms: Path) -> Path:
    (found,) = rpms.glob("vmoor-*.noarch.rpm")
    return found


@pytest.fixture(scope="session")
def deb_root(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("deb")
    process.run(["dpkg-deb", "--extract", str(deb), str(root)])
    return root


@pytest.fixture(scope="session")
def rpm_root(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rpm")
    script = 'rpm2cpio "$1" | cpio --extract --make-directories --quiet --directory="$2"'
    process.run(["sh", "-c", script, "sh", str(rpm), str(root)])
    return root
