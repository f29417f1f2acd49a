"""The notices of three clouds, by their own protocols over real sockets."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Callable

import pytest
from vmoor.adapters import metadata
from vmoor.errors import Unavailable
from vmoor.model.notice import Notice

from tests.clouds import SPOT, Metadata
from tests.contract.exec_runner import AGENT

Service = Callable[[str], Any]


@pytest.fixture
def cloud() -> Iterator[Metadata]:
    with Metadata() as cloud:
        yield cloud


@pytest.fixture
def service(cloud: Metadata) -> Iterator[Service]:
    """Makes the agent's own client of that cloud."""
    with contextlib.ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(metadata.of(name, cloud.url)))


def test_aws_is_asked_with_a_token_and_tells_a_spot_notice(
    cloud: Metadata, service: Service
) -> None:
    """IMDSv2: one token for all that follows."""
    aws = service("aws")
    assert aws.look() is None
    cloud.spot = SPOT
    for _ in range(3):
        assert aws.look() == Notice("AWS spot notice", "terminate at 2026-11-24T18:02:00Z")
    assert [asked for asked in cloud.asked if asked.startswith("PUT")] == ["PUT /latest/api/token"]


def test_a_token_that_is_over_is_followed_by_another(cloud: Metadata, service: Service) -> None:
    """Within the same look; a server that takes none at all is no endless loop."""
    aws = service("aws")
    assert aws.look() is None
    cloud.tokens.clear()
    cloud.target = "Terminated"
    assert aws.look() == Notice("AWS scale-in", "target state Terminated")
    cloud.status = 401
    with pytest.raises(Unavailable, match="status 401"):
        aws.look()


def test_aws_says_where_a_scaling_group_wants_the_vm(cloud: Metadata, service: Service) -> None:
    """Not in the mesh while it is in the warm pool; back when it is taken from there."""
    aws = service("aws")
    cloud.target = "Warmed:Running"
    assert aws.look() == Notice("AWS warm pool", "Warmed:Running", hold=True)
    cloud.target = "InService"
    assert aws.look() is None


def test_google_is_waited_for(cloud: Metadata, service: Service) -> None:
    """The first look answers at once, the next as soon as it changes."""
    gce = service("gce")
    assert gce.look() is None
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(gce.look()))
    waiting.start()
    waiting.join(0.3)
    assert found == []
    began = time.monotonic()
    cloud.preempt()
    waiting.join(5)
    assert found == [Notice("GCE preemption", "preempted")]
    assert time.monotonic() - began < 1.0
    assert "wait_for_change=true&timeout_sec=60&last_etag=1" in cloud.asked[-1]


def test_azure_tells_what_is_scheduled_for_this_vm(cloud: Metadata, service: Service) -> None:
    """Others of its scale set are in the same document."""
    azure = service("azure")
    cloud.event("Preempt", vm="web-2", at="Tue, 24 Nov 2026 18:02:00 GMT")
    assert azure.look() is None
    cloud.event("Preempt", at="Tue, 24 Nov 2026 18:02:00 GMT")
    assert azure.look() == Notice(
        "Azure Preempt event", "not before Tue, 24 Nov 2026 18:02:00 GMT"
    )
    cloud.events = []
    assert azure.look() is None


@pytest.mark.parametrize("name", ["aws", "gce", "azure"])
@pytest.mark.parametrize("status", [302, 403, 429, 500])
def test_what_is_no_answer_is_unavailable(
    cloud: Metadata, service: Service, name: str, status: int
) -> None:
    """A redirect is not followed; nothing that the agent's credentials would be dropped for."""
    cloud.status = status
    cloud.headers = {"Location": f"{cloud.url}/elsewhere"}
    with pytest.raises(Unavailable):
        service(name).look()
    assert not any("elsewhere" in asked for asked in cloud.asked)


@pytest.mark.parametrize("name", ["aws", "gce", "azure"])
@pytest.mark.parametrize("raw", [b"[]", b"\xff" * 64, b"{" * 50_000, b"x" * 100_000], ids=range(4))
def test_nonsense_is_unavailable(cloud: Metadata, service: Service, name: str, raw: bytes) -> None:
    """Not what the cloud would say, nested without end, or longer than it would ever be."""
    asked = service(name)
    asked.look()
    cloud.spot = "{}"
    cloud.raw = raw
    cloud.preempt()
    with pytest.raises(Unavailable):
        asked.look()


def test_nobody_there_is_unavailable() -> None:
    """Within two seconds, whoever it is."""
    with Metadata() as cloud:
        url = cloud.url
    for name in ("aws", "gce", "azure"):
        with pytest.raises(Unavailable, match="cannot reach"):
            metadata.of(name, url).look()


def test_a_proxy_of_the_environment_is_not_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metadata service answers only to its own VM."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert service("aws").look() is None


def test_an_agent_that_listens_to_no_cloud_loads_nothing_for_it() -> None:
    """Neither the clouds' protocols nor the loops of notices and hooks."""
    parts = ["adapters.metadata", "controllers.notices", "controllers.hooks"]
    code = f"""
import sys, vmoor.mooring
print([part for part in {parts} if f"vmoor.{{part}}" in sys.modules])
"""
    argv = [sys.executable, "-W", "ignore", "-c", code]
    said = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(AGENT)}
    )
    assert said.stdout == "[]\n"
