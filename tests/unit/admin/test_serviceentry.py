"""The ServiceEntry and the retries that are printed for kubectl."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from vmoor.cli.admin import admin

ENTRY = "service-entry --namespace shop --service web --host web.shop.mesh"


def documents(more: str) -> list[Any]:
    result = CliRunner().invoke(admin, f"{ENTRY} {more}".split())
    assert result.exit_code == 0, result.output
    return list(yaml.safe_load_all(result.output))


def test_it_selects_the_vms_entries() -> None:
    """By vmoor's label of the service, as a service inside the mesh."""
    (made,) = documents("--port 80:http --vip 240.240.0.1")
    assert made["metadata"] == {"name": "web", "namespace": "shop"}
    assert made["spec"] == {
        "hosts": ["web.shop.mesh"],
        "addresses": ["240.240.0.1"],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "workloadSelector": {"labels": {"vmoor.io/service": "web"}},
    }


@pytest.mark.parametrize(
    ("port", "want"),
    [
        ("80:http:8080", {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080}),
        ("90:grpc-web", {"number": 90, "name": "grpc-web", "protocol": "GRPC-WEB"}),
        ("90:http-admin", {"number": 90, "name": "http-admin", "protocol": "HTTP"}),
        ("80:http/HTTP2", {"number": 80, "name": "http", "protocol": "HTTP2"}),
        ("80:HTTP", {"number": 80, "name": "http", "protocol": "HTTP"}),
        ("90:main/tcp", {"number": 90, "name": "main", "protocol": "TCP"}),
    ],
)
def test_ports_have_the_services_names(port: str, want: dict[str, Any]) -> None:
    """Istio maps an entry's port by its name."""
    (made,) = documents(f"--port {port}")
    assert made["spec"]["ports"] == [want]


def test_only_reading_methods_are_retried_after_a_reset() -> None:
    """A POST that the application may have seen is never sent twice."""
    _, made = documents("--port 80:http --retries")
    reading, other = made["spec"]["http"]
    assert "reset" in reading["retries"]["retryOn"].split(",")
    assert reading["match"] == [{"method": {"regex": "GET|HEAD|OPTIONS"}}]
    assert "reset" not in other["retries"]["retryOn"].split(",")
    assert "perTryTimeout" not in other["retries"]


@pytest.mark.parametrize("port", ["80:main", "0:http", "80", "80:http:70000", "80:http/smtp"])
def test_wrong_ports_are_usage_errors(port: str) -> None:
    """Exit code 2."""
    assert CliRunner().invoke(admin, f"{ENTRY} --port {port}".split()).exit_code == 2


def test_a_try_has_a_duration() -> None:
    """Istio would refuse the VirtualService, or take the number for something else."""
    for wrong in ("5", "banana"):
        asked = f"{ENTRY} --port 80:http --retries --try-timeout {wrong}".split()
        result = CliRunner().invoke(admin, asked)
        assert result.exit_code == 2
        assert "is not a duration such as 10s" in result.output


def test_retries_need_a_protocol_that_has_requests() -> None:
    """A VirtualService for TCP would be nonsense."""
    result = CliRunner().invoke(admin, f"{ENTRY} --port 5432:tcp --retries".split())
    assert result.exit_code == 2
    assert "HTTP and gRPC" in result.output
