"""A release: the version in one place, and everything that is published beside the packages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.packages import test_rpm
from tests.rig import process
from tests.stage import PROJECT

UNRELEASED = """\
# Changelog

## [Unreleased]

### Added
- `vmoor wait`: returns when it is so, for a hundred
  percent (100%) of the machines.

### Fixed
- A crash.

## [0.1.0] - 2026-11-24
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    process.run([str(PROJECT / "packaging/source.sh"), str(tmp_path / "copy")])
    return tmp_path / "copy"


@pytest.mark.usefixtures("deb", "rpms")  # which install what reads them
def test_one_command_makes_a_version(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version stands everywhere, and both packages' changelogs say what CHANGELOG.md says."""
    (checkout / "CHANGELOG.md").write_text(UNRELEASED)
    process.run([str(checkout / "packaging/version.py"), "0.2.0", "2027-01-31"])
    monkeypatch.setattr(test_rpm, "PROJECT", checkout)
    test_rpm.test_one_version_everywhere()
    told = "vmoor wait: returns when it is so, for a hundred percent (100%) of the machines."
    read = ["dpkg-parsechangelog", "-l", str(checkout / "debian/changelog"), "-S", "Changes"]
    assert told in " ".join(process.run(read).split())
    query = ["rpmspec", "--load", str(checkout / "rpm/macros.debian"), "-q", "--srpm"]
    spec = str(checkout / "rpm/vmoor.spec")
    said = process.run([*query, "--qf", "%{VERSION} %{CHANGELOGTIME} %{CHANGELOGTEXT}", spec])
    assert " ".join(said.split()) == f"0.2.0 1801396800 - {told} - Fixed: A crash."
    changelog = (checkout / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [0.2.0] - 2027-01-31\n\n### Added" in changelog


def test_the_bill_of_materials_names_what_is_required(deb: Path) -> None:
    """It has the libraries of the .deb's Depends, none of them as a part of the package."""
    document = json.loads(process.run([str(PROJECT / "packaging/sbom.py")]))
    depends = process.run(["dpkg-deb", "--field", str(deb), "Depends"])
    required = {part["name"] for part in document["components"] if part["scope"] == "required"}
    names = {name.lower().replace("pyyaml", "yaml") for name in required}
    assert {f"python3-{name}" for name in names} <= set(depends.replace(",", "").split())


def test_what_is_not_committed_is_not_released(checkout: Path) -> None:
    """A checkout with a change makes no release."""
    shutil.rmtree(checkout / "dist", ignore_errors=True)
    process.run(["git", "init", "--quiet", str(checkout)])
    with pytest.raises(process.RigError, match="cannot release what is not committed"):
        process.run([str(checkout / "packaging/build-release.sh")])
