"""The .rpm is the same package as the .deb, under the names of its distributions."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from tests.rig import process
from tests.stage import PROJECT

# Debian's own paths, as they are called elsewhere.
MOVED = (
    ("lib/systemd/system/", "usr/lib/systemd/system/"),
    ("usr/share/zsh/vendor-completions/", "usr/share/zsh/site-functions/"),
)
# What only one of the two formats has.
OF_DEB = re.compile(r"usr/share/lintian/|usr/share/doc/vmoor/(changelog|copyright)")
OF_RPM = re.compile(r"usr/share/licenses/|usr/share/doc/vmoor/\w+\.md$|.*\.pyc$")
METADATA = re.compile(r".*\.(dist|egg)-info/")  # as each one's tools write it

# In EL 9 and 10 with EPEL, and in Fedora; besides, there, what the wheel's metadata says.
REQUIRED = {"iproute", "iptables", "polkit", "python3-systemd", "systemd"}
OF_THE_FORMAT = re.compile(r"/bin/sh$|/usr/bin/python3$|rpmlib\(|config\(vmoor\)")


def files(root: Path, skip: re.Pattern[str]) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each file."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        for ours, theirs in MOVED:
            if name.startswith(ours):
                name = theirs + name[len(ours) :]
        if path.is_file() and not skip.match(name) and not METADATA.match(name):
            content = path.read_bytes()
            found[name] = (
                path.stat().st_mode & 0o7777,
                gzip.decompress(content) if name.endswith(".gz") else content,
            )
    return found


def test_both_packages_hold_the_same_files(deb_root: Path, rpm_root: Path) -> None:
    """The same files with the same modes and bytes, at each distribution's places."""
    ours, theirs = files(deb_root, OF_DEB), files(rpm_root, OF_RPM)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_bytecode_belongs_to_the_package(rpm_root: Path) -> None:
    """Each module's bytecode is in the package: one that an older version's first call left behind
    would stay valid, as all times are the release's."""
    modules = [p for p in rpm_root.rglob("*.py") if "vmoor" in p.parts]
    compiled = {p.name.partition(".")[0] for p in rpm_root.rglob("*.pyc")}
    assert {p.stem for p in modules} == compiled


def test_dependencies_are_those_of_its_distributions(rpm: Path) -> None:
    """No name of Debian's is required."""
    said = process.run(["rpm", "-qpR", str(rpm)]).splitlines()
    assert {line for line in said if not OF_THE_FORMAT.match(line)} == REQUIRED


# An instance of a template ends with its connection.
UNITS = [p.name for p in (PROJECT / "packaging/systemd").iterdir() if "@" not in p.name]


@pytest.mark.parametrize("unit", sorted(UNITS))
def test_no_unit_is_forgotten(unit: str) -> None:
    """Both packages say what becomes of each unit at an upgrade and a removal."""
    assert re.search(rf"dh_installsystemd .*\b{unit}$", read("debian/rules"), re.MULTILINE)
    spec = read("rpm/vmoor.spec")
    assert re.search(rf"^%systemd_preun .*\b{unit}\b", spec, re.MULTILINE)
    assert re.search(rf"^%systemd_postun(_with_restart)? .*\b{unit}\b", spec, re.MULTILINE)


def test_one_version_everywhere() -> None:
    """The agent, both packages and both changelogs are of one version."""
    (ours,) = re.findall(r'__version__ = "(.+)"', read("agent/vmoor/__init__.py"))
    assert read("debian/changelog").startswith(f"vmoor ({ours}-1) ")
    spec = read("rpm/vmoor.spec")
    assert re.findall(r"^Version: +(.+)$", spec, re.MULTILINE) == [ours]
    assert re.search(rf"^%changelog\n\* .+ - {re.escape(ours)}-1$", spec, re.MULTILINE)


def read(path: str) -> str:
    return (PROJECT / path).read_text()
