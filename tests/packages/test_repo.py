"""The repositories that `make repo` makes, as the machines of a fleet use them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.packages import image
from tests.rig import prerequisites, process
from tests.rig.errors import RigError
from tests.stage import PROJECT

KEY = "tests@vmoor.example"
# The documented way, from a folder instead of a web server.
INSTALL = """\
echo 'deb [signed-by=/given/repo/vmoor.asc] file:/given/repo/apt ./' >/etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update -o APT::Update::Error-Mode=any
apt-get -qq -y install vmoor </dev/null
vmoor --version
apt-cache policy vmoor
"""


@pytest.fixture(scope="module")
def repo(deb: Path, rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signed with a key made for it."""
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    environment = {**os.environ, "GNUPGHOME": str(home), "SIGN_KEY": KEY}
    made = tmp_path_factory.mktemp("made") / "repo"
    make_key = ["gpg", "--batch", "--quiet", "--passphrase", "", "--quick-generate-key", KEY]
    if not shutil.which("gpg-agent"):
        prerequisites.apt_install(["gpg", "gpg-agent"])
    try:
        process.run(make_key, env=environment)
        script = str(PROJECT / "packaging/build-repo.sh")
        process.run([script, str(made), str(deb), str(rpm)], env=environment, timeout=300)
    finally:
        process.run(["gpgconf", "--kill", "all"], env=environment)
    return made


def test_apt_installs_from_it(repo: Path, tmp_path: Path) -> None:
    """apt trusts the key alone, and the origin is there for unattended-upgrades."""
    said = image.run(tmp_path, INSTALL, repo)
    assert "vmoor, version " in said
    assert "file:/given/repo/apt ./ Packages" in said
    assert "\nOrigin: vmoor\n" in (repo / "apt/Release").read_text()


def test_apt_refuses_a_changed_one(repo: Path, tmp_path: Path) -> None:
    """A package list that the key did not sign installs nothing."""
    spoil = (
        "gzip -dc /given/repo/apt/Packages.gz | sed s/^Priority.*// >/given/repo/apt/Packages\n"
    )
    with pytest.raises(RigError, match=r"(Hash Sum|size) mismatch|unexpected size"):
        image.run(tmp_path, f"{spoil}rm /given/repo/apt/Packages.gz\n{INSTALL}", repo)


def test_yum_metadata_and_packages_are_signed(repo: Path, rpm: Path, tmp_path: Path) -> None:
    """rpm, which knows the key only, accepts the package; the metadata name it and are signed."""
    database = f"--dbpath={tmp_path}/rpm"
    process.run(["rpm", database, "--import", str(repo / "vmoor.asc")])
    package = repo / "yum" / rpm.name
    assert "digests signatures OK" in process.run(["rpm", database, "-K", str(package)])
    # An agent, which no public key needs, would outlive the test.
    keyring = ["gpg", "--homedir", str(tmp_path), "--no-autostart", "--no-default-keyring"]
    keyring += ["--keyring", "repo.gpg"]
    process.run([*keyring, "--batch", "--quiet", "--import", str(repo / "vmoor.asc")])
    metadata = repo / "yum/repodata/repomd.xml"
    process.run([*keyring, "--batch", "--verify", f"{metadata}.asc", str(metadata)])
    (primary,) = (repo / "yum/repodata").glob("*-primary.xml.gz")
    assert f'<location href="{rpm.name}"/>' in process.run(["gzip", "-dc", str(primary)])
