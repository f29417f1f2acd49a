"""Root's hook reads only what root wrote, and believes only values of the right type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vmoor.proxyunit import settings, trusted


@pytest.mark.usefixtures("owners")
def test_drop_ins_merge_in_byte_order(tmp_path: Path) -> None:
    """vmoor.yaml first; mappings merge, lists and scalars replace."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "vmoor.yaml").write_text(
        "interception: {mode: none, exclude: {cidrs: [10.0.0.1]}}"
    )
    (tmp_path / "conf.d/20.yaml").write_text("interception: {exclude: {inbound_ports: [3]}}")
    (tmp_path / "conf.d/10.yaml").write_text(
        "vault: {}\ninterception: {mode: redirect, exclude: {inbound_ports: [1, 2]}}"
    )
    (tmp_path / "conf.d/30.yaml.old").write_text("interception: {mode: none}")
    found = settings.load(pytest.fail, tmp_path)
    assert found == settings.Settings(inbound_ports=(3,), cidrs=("10.0.0.1/32",))


@pytest.mark.usefixtures("owners")
def test_hidden_drop_ins_are_not_read(tmp_path: Path) -> None:
    """What an editor leaves behind, half-written; the agent doesn't read it either."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/.10-mesh.yaml").write_text("interception: [")
    assert settings.load(pytest.fail, tmp_path) == settings.Settings()


@pytest.mark.parametrize(("uid", "mode"), [(995, 0o644), (0, 0o664), (0, 0o646)])
def test_a_file_that_others_may_write_is_skipped_and_told(
    owners: dict[str, tuple[int, int]], tmp_path: Path, uid: int, mode: int
) -> None:
    """The agent's user can't turn off the capture, nor name a binary for root to run."""
    file = tmp_path / "vmoor.yaml"
    file.write_text("proxy: {pilot_agent: /tmp/evil}\ninterception: {mode: none}")
    owners[str(file)] = (uid, mode)
    told: list[str] = []
    assert settings.load(told.append, tmp_path) == settings.Settings()
    assert told[0].startswith(f"skipped {file}: ")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"interception": []}, "interception is not a mapping"),
        ({"interception": {"mode": "REDIRECT"}}, "interception.mode is none of"),
        ({"interception": {"mode": "tproxy"}}, "interception.mode is none of"),
        ({"interception": {"mode": ["none"]}}, "interception.mode is none of"),
        ({"interception": {"dns_capture": "yes"}}, "neither true nor false"),
        ({"interception": {"ipv6": True}}, "interception.ipv6 is none of open, closed"),
        ({"interception": {"ipv6": ["closed"]}}, "interception.ipv6 is none of open, closed"),
        ({"interception": {"exclude": {"inbound_ports": 22}}}, "is not a list"),
        ({"interception": {"exclude": {"inbound_ports": [True]}}}, "True is not a port"),
        ({"interception": {"exclude": {"outbound_ports": ["22 -j DROP"]}}}, "is not a port"),
        ({"interception": {"exclude": {"outbound_ports": [65536]}}}, "65536 is not a port"),
        ({"interception": {"exclude": {"cidrs": ["10.0.0.0/33"]}}}, "exclude.cidrs"),
        ({"interception": {"exclude": {"cidrs": ["-j DROP"]}}}, "exclude.cidrs"),
        ({"proxy": {"pilot_agent": "pilot-agent"}}, "not an absolute path"),
        ({"proxy": {"pilot_agent": 7}}, "not an absolute path"),
    ],
)
def test_values_of_another_type_are_refused(value: dict[str, Any], reason: str) -> None:
    """No value gets into a command of root's unless it is what it must be."""
    with pytest.raises(settings.Unusable, match=reason):
        settings.settle(value)


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize("content", [b"a: [", b"- a", b"\xff\xfe\x00", b"a: b: c"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: bytes) -> None:
    """It may hold an exclusion: capturing without it would be worse than no capture."""
    (tmp_path / "vmoor.yaml").write_bytes(content)
    with pytest.raises(settings.Unusable, match=r"vmoor\.yaml"):
        settings.load(pytest.fail, tmp_path)


@pytest.mark.usefixtures("owners")
def test_no_configuration_means_the_defaults(tmp_path: Path) -> None:
    """As in the schema: redirect, with DNS."""
    assert settings.load(pytest.fail, tmp_path) == settings.Settings()


def test_every_step_of_a_path_must_be_roots(
    owners: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    """A writable directory in the middle is as bad as a writable file; so is a link's target."""
    binary = tmp_path / "opt/bin/pilot-agent"
    binary.parent.mkdir(parents=True)
    binary.write_text("")
    link = tmp_path / "link"
    link.symlink_to("opt/bin/../bin/pilot-agent")
    trusted.check(str(binary))
    trusted.check(str(link))
    owners[str(tmp_path / "opt")] = (0, 0o775)
    for path in (binary, link):
        with pytest.raises(trusted.Untrusted, match=r"opt is writable by others"):
            trusted.check(str(path))
    owners[str(tmp_path / "opt")] = (995, 0o755)
    with pytest.raises(trusted.Untrusted, match=r"opt belongs to uid 995"):
        trusted.check(str(binary))


@pytest.mark.usefixtures("owners")
def test_what_is_not_there_is_not_trusted(tmp_path: Path) -> None:
    """Somebody else might put it there; relative paths and circles of links neither."""
    (tmp_path / "circle").symlink_to("circle")
    for path in (str(tmp_path / "none"), "bin/sh", str(tmp_path / "circle")):
        with pytest.raises(trusted.Untrusted):
            trusted.check(path)


def test_setgid_binaries_are_fine(owners: dict[str, tuple[int, int]], tmp_path: Path) -> None:
    """Istio's package makes them 2755, group istio-proxy."""
    binary = tmp_path / "envoy"
    binary.write_text("")
    owners[str(binary)] = (0, 0o2755)
    trusted.check(str(binary))
