"""Who this VM is, from a tree of files as a VM has them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import pytest
from vmoor.adapters import host as host_adapter
from vmoor.adapters.host import LocalHost
from vmoor.errors import LocalFault, Misconfigured

BOOT_ID = "5a1c0f5e-0000-4000-8000-000000000001"
AWS = {"instance_id": "i-0abc", "region": "eu-west-1", "availability_zone": "eu-west-1a"}


@pytest.fixture(autouse=True)
def _hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Shop-7.example.com")


def vm(
    root: Path, v1: Optional[Mapping[str, Any]] = None, machine_id: str = "a" * 32
) -> LocalHost:
    files = {"etc/machine-id": machine_id, "proc/sys/kernel/random/boot_id": BOOT_ID}
    if v1 is not None:
        files["run/cloud-init/instance-data.json"] = json.dumps({"v1": v1, "ds": {}})
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")
    return LocalHost(str(root))


@pytest.mark.parametrize(
    ("configured", "v1", "name"),
    [
        ("Web-1", AWS, "web-1"),
        ("", AWS, "i-0abc"),
        ("", {"instance_id": "iid-datasource-none"}, "shop-7"),
        ("", {"instance_id": "under_score"}, "shop-7"),
        ("", {"instance_id": None}, "shop-7"),
        ("", None, "shop-7"),
    ],
)
def test_the_name(
    tmp_path: Path, configured: str, v1: Optional[Mapping[str, Any]], name: str
) -> None:
    """Configured, else the instance id, else the host's name; in lower case."""
    machine = vm(tmp_path, v1).machine(configured)
    assert (machine.name, machine.boot_id) == (name, BOOT_ID)


@pytest.mark.parametrize("name", ["debian", "LOCALHOST", "web_1", "a.b", "-a", "a" * 64, "ü"])
def test_a_name_that_cannot_be(tmp_path: Path, name: str) -> None:
    """A generic name, or one that is no DNS label, is refused with the line to add."""
    with pytest.raises(Misconfigured) as refused:
        vm(tmp_path, AWS).machine(name)
    assert name in refused.value.message
    assert "vm: {name: web-1}" in refused.value.remedy


def test_a_generic_host_without_instance_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made up: both that were tried are told."""
    monkeypatch.setattr(socket, "gethostname", lambda: "debian")
    with pytest.raises(Misconfigured, match="'iid-datasource-none' or 'debian'"):
        vm(tmp_path, {"instance_id": "iid-datasource-none"}).machine("")


def test_the_hash_tells_clones_apart(tmp_path: Path) -> None:
    """Equal at the next start, another for another machine-id or instance id."""
    one = vm(tmp_path, AWS).machine("web").machine_hash
    assert len(one) == 16
    assert vm(tmp_path, AWS).machine("other").machine_hash == one
    assert vm(tmp_path, {**AWS, "instance_id": "i-0def"}).machine("web").machine_hash != one
    assert vm(tmp_path, AWS, machine_id="b" * 32).machine("web").machine_hash != one


@pytest.mark.parametrize(
    ("v1", "locality"),
    [
        (AWS, "eu-west-1/eu-west-1a"),
        ({"region": "eu-west-1", "availability_zone": None}, "eu-west-1"),
        ({"region": None, "availability_zone": "a"}, ""),
        ({"region": "a/b\n", "availability_zone": "a"}, ""),
        ({"region": {"x": 1}}, ""),
        (None, ""),
    ],
)
def test_locality(tmp_path: Path, v1: Optional[Mapping[str, Any]], locality: str) -> None:
    """region/zone when the cloud tells them, and only as words that Istio takes."""
    assert vm(tmp_path, v1).locality() == locality


@pytest.mark.parametrize(
    ("v1", "told"),
    [(AWS, "i-0abc"), ({"instance_id": "iid-datasource-none"}, ""), ({}, ""), (None, "")],
)
def test_the_instance_id(tmp_path: Path, v1: Optional[Mapping[str, Any]], told: str) -> None:
    """The cloud's; what cloud-init says where there is no cloud is none."""
    assert vm(tmp_path, v1).instance_id() == told


AZURE = {"interface": [{"ipv4": {"ipAddress": [{"publicIpAddress": "203.0.113.7"}]}}]}


@pytest.mark.parametrize(
    "ds",
    [
        {"meta_data": {"public-ipv4": "203.0.113.7", "local-ipv4": "10.0.0.5"}},
        {"meta_data": {}, "ec2_metadata": {"public-ipv4": "203.0.113.7"}},
        {"meta_data": {"imds": {"network": AZURE}}},
    ],
    ids=["EC2", "OpenStack", "Azure"],
)
def test_the_public_address(tmp_path: Path, ds: Mapping[str, Any]) -> None:
    """Where the datasources of cloud-init put it."""
    assert of_cloud(tmp_path, ds).public_address() == "203.0.113.7"


@pytest.mark.parametrize(
    ("ds", "words"),
    [
        ({"meta_data": {"local-ipv4": "10.0.0.5"}}, "cloud-init tells none"),
        ({"meta_data": {"imds": {"network": {"interface": []}}}}, "cloud-init tells none"),
        ({"meta_data": {"public-ipv4": ["203.0.113.7"]}}, "cloud-init tells none"),
        (["meta_data"], "cloud-init tells none"),
        ({"meta_data": {"public-ipv4": "2001:db8::7"}}, "2001:db8::7, which is no IPv4 address"),
        ({"meta_data": {"public-ipv4": "a\nb"}}, "tells a b, which is no IPv4 address"),
    ],
)
def test_no_public_address(tmp_path: Path, ds: object, words: str) -> None:
    """A cloud that tells none, or something else: the key to set is told."""
    with pytest.raises(LocalFault, match=words) as refused:
        of_cloud(tmp_path, ds).public_address()
    assert "set vm.address" in refused.value.remedy


def of_cloud(root: Path, ds: object) -> LocalHost:
    host = vm(root, AWS)
    (root / "run/cloud-init/instance-data.json").write_text(json.dumps({"v1": AWS, "ds": ds}))
    return host


def test_istiod_by_ipv6_is_told() -> None:
    """Before any attempt, with what to change."""
    with pytest.raises(
        LocalFault, match=r"istiod's is \[fd00::1\]:15012, and the mesh"
    ) as refused:
        LocalHost().route_address("[fd00::1]:15012")
    assert "vm.address" in refused.value.remedy


def test_a_vm_without_ipv4_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """No route is the consequence; the cause is told."""
    monkeypatch.setattr(host_adapter, "_addresses", list)
    with pytest.raises(LocalFault, match="has no IPv4 address, and the mesh reaches VMs by IPv4"):
        LocalHost().route_address("198.18.0.1:none")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"{", "not JSON"), (b"\xff", "not JSON"), (b" " * (1 << 20) + b"{}", "larger than 1 MiB")],
)
def test_broken_instance_data(tmp_path: Path, content: bytes, why: str) -> None:
    """A name is not guessed from half a file."""
    host = vm(tmp_path, AWS)
    (tmp_path / "run/cloud-init/instance-data.json").write_bytes(content)
    with pytest.raises(LocalFault, match=why):
        host.machine("")


def test_instance_data_of_another_shape(tmp_path: Path) -> None:
    """JSON that says nothing is like no file."""
    host = vm(tmp_path)
    (tmp_path / "run/cloud-init").mkdir(parents=True)
    (tmp_path / "run/cloud-init/instance-data.json").write_text("[1]")
    assert host.machine("").name == "shop-7"


def test_no_machine_id(tmp_path: Path) -> None:
    """An image that was never booted, or cleaned: told by the file's name."""
    host = vm(tmp_path, AWS, machine_id="")
    with pytest.raises(LocalFault, match="/etc/machine-id: it is empty"):
        host.machine("web")
