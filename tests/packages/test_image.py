"""The package goes into an image where no systemd runs, and out of it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages import image

STEPS = """\
snapshot() {
    find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune \\
        -o -printf '%p %l %M %u:%g\\n' | sort
}
snapshot >/before
dpkg --install --force-unsafe-io /given/*.deb </dev/null
systemctl is-enabled vmoor.service vmoor-exec.socket vmoor-ttl.socket
stat -c '%U:%G %a %n' /etc/vmoor/conf.d /etc/vmoor/credentials
vmoor --version
dpkg --purge vmoor </dev/null
getent passwd vmoor vmoor-exec istio-proxy | cut -d: -f1,6,7
snapshot >/after
"""
NOTED = ("/after ", "/var/log/dpkg.log ", "/run/needrestart")


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def built(
    request: pytest.FixtureRequest, deb: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """What the steps said, and the image after them."""
    folder = tmp_path_factory.mktemp("image")
    return image.run(folder, STEPS, deb, release=request.param), folder / "upper"


def test_it_is_enabled_for_the_first_boot(built: tuple[str, Path]) -> None:
    """The units are enabled, the folders have their owners, the command works; nothing fails."""
    said, _ = built
    assert "enabled\nenabled\nenabled\n" in said
    assert "root:vmoor 750 /etc/vmoor/conf.d\nroot:vmoor 750 /etc/vmoor/credentials\n" in said
    assert "vmoor, version " in said


def test_a_purge_leaves_nothing_but_the_users(built: tuple[str, Path]) -> None:
    """Of all files of the image, none was added, removed or changed its mode, owner or target."""
    said, after = built
    assert "vmoor:/var/lib/vmoor:/usr/sbin/nologin\n" in said
    lines = [set((after / name).read_text().splitlines()) for name in ("before", "after")]
    assert [line for line in sorted(lines[0] ^ lines[1]) if not line.startswith(NOTED)] == []
