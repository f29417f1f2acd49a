"""What our own Envoy says about endpoints, asked of a real Envoy with clusters as istiod sends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Optional

import pytest
from vmoor.adapters.envoy_admin import EnvoyAdmin
from vmoor.model.sight import Clusters

from tests.rig import inside, process
from tests.rig.rig import Rig

PORT = 15900
NAME = "outbound|80||web.shop.mesh"
INBOUND = "inbound|9090||"


TCP = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
PROXY = {"@type": TCP, "stat_prefix": "inbound", "cluster": INBOUND}
CAPTURED = {  # as Istio's virtualInbound
    "name": "virtualInbound",
    "traffic_direction": "INBOUND",
    "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
    "filter_chains": [
        {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": PROXY}]}
    ],
}


def cluster(name: str, address: str, port: int) -> dict[str, object]:
    socket = {"socket_address": {"address": address, "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as running:
        config = {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}}},
            "static_resources": {
                "clusters": [
                    cluster(NAME, "10.0.0.1", 8080),
                    cluster(f"{NAME}6", "fd00::1", 8080),
                    cluster(INBOUND, "127.0.0.1", 9090),
                ],
                "listeners": [CAPTURED],
            },
        }
        path = running.ground.folder("admin-envoy") / "envoy.json"
        path.write_text(json.dumps(config))
        argv = [str(running.binaries.envoy), "-c", str(path), "--base-id", "77", "-l", "error"]
        envoy = running.ground.spawn("admin-envoy", argv)
        url = f"http://127.0.0.1:{PORT}/ready"
        envoy.wait_until(lambda: running.ground.answers(url), 30, "ready")
        yield running


@pytest.mark.parametrize(
    ("endpoint", "known"),
    [
        ("10.0.0.1:8080", True),
        ("[fd00::1]:8080", True),
        ("10.0.0.1:808", False),
        ("10.0.0.1:9090", False),
        ("10.0.0.9:8080", False),
    ],
    ids=["listed", "IPv6", "another port", "inbound only", "another address"],
)
def test_an_endpoint_is_known_while_an_outbound_cluster_lists_it(
    rig: Rig, endpoint: str, known: bool
) -> None:
    """Exactly the address and port, and only as somebody to send to."""
    admin = EnvoyAdmin(f"http://127.0.0.1:{PORT}")
    seen = inside.call(rig.network.netns_path, lambda: admin.clusters([endpoint], deadline=1.0))
    assert seen == Clusters(frozenset([endpoint] if known else []), frozenset([9090]))


def test_an_envoy_that_is_not_there_is_no_answer(rig: Rig) -> None:
    """Neither known nor forgotten."""
    admin = EnvoyAdmin("http://127.0.0.1:15999")
    ask = lambda: admin.clusters(["10.0.0.1:8080"], deadline=1.0)  # noqa: E731
    assert inside.call(rig.network.netns_path, ask) is None


def test_open_connections_are_counted_and_served_through_a_drain(rig: Rig) -> None:
    """What came in by the capture; a drain neither cuts it nor refuses who comes after it."""
    admin = EnvoyAdmin(f"http://127.0.0.1:{PORT}")

    def counts() -> tuple[Optional[int], Optional[int], Optional[int]]:
        return (
            admin.requests(deadline=1.0),
            admin.requests([9090], deadline=1.0),
            admin.requests([8080], deadline=1.0),
        )

    def see() -> None:
        with socket.create_server(("127.0.0.1", 9090)) as server:
            assert counts() == (0, 0, 0)
            with (
                socket.create_connection(("127.0.0.1", 15006), 5) as first,
                server.accept()[0] as served,
            ):
                process.wait_until(lambda: counts() == (1, 1, 0), 5, "one")
                assert admin.drain(deadline=1.0)
                with socket.create_connection(("127.0.0.1", 15006), 5), server.accept()[0]:
                    process.wait_until(lambda: counts()[:2] == (2, 2), 5, "two")
                process.wait_until(lambda: counts()[:2] == (1, 1), 5, "one again")
                first.sendall(b"still here")
                assert served.recv(100) == b"still here"
            process.wait_until(lambda: counts() == (0, 0, 0), 5, "none")

    inside.call(rig.network.netns_path, see)


def test_an_envoy_that_is_not_there_is_not_drained(rig: Rig) -> None:
    """Nor has it connections: both are no error."""
    admin = EnvoyAdmin("http://127.0.0.1:15999")
    ask = lambda: (admin.drain(deadline=1.0), admin.requests(deadline=1.0))  # noqa: E731
    assert inside.call(rig.network.netns_path, ask) == (False, None)
