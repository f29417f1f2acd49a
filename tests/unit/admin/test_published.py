"""The mesh facts as publish makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from vmoor.model import published
from vmoor.model.published import Cluster, Wishes

CLUSTER = Cluster(
    server="https://10.0.0.1:6443", ca="CA", mesh={}, values={}, root_ca="ROOT",
    discovery=("10.0.0.2:15012",),
)  # fmt: skip


def test_defaults_are_istios() -> None:
    """A mesh that says nothing special."""
    assert published.document(CLUSTER, Wishes())["istio"] == {
        "discovery": ["10.0.0.2:15012"],
        "san": "istiod.istio-system.svc",
        "root_ca": "ROOT",
        "revision": "",
        "mesh_id": "",
        "cluster": "Kubernetes",
        "network": "",
        "trust_domain": "cluster.local",
        "proxy_config": {},
    }


def test_mesh_and_injector_are_heard() -> None:
    """What the mesh says of itself is published; what a VM decides itself is not."""
    cluster = replace(
        CLUSTER,
        mesh={
            "trustDomain": "td.example",
            "defaultConfig": {"meshId": "m", "discoveryAddress": "x:1", "concurrency": 2},
        },
        values={"global": {"network": "net-a", "multiCluster": {"clusterName": "c-1"}}},
    )
    istio = published.document(cluster, Wishes(revision="canary"))["istio"]
    assert (istio["trust_domain"], istio["mesh_id"]) == ("td.example", "m")
    assert (istio["network"], istio["cluster"]) == ("net-a", "c-1")
    assert istio["proxy_config"] == {"concurrency": 2}
    assert (istio["san"], istio["revision"]) == ("istiod-canary.istio-system.svc", "canary")


def test_the_operator_wins() -> None:
    """--server, --discovery and --san replace what was found."""
    wishes = Wishes(server=("https://lb:443",), discovery=("gw:1",), san="istiod.example")
    got = published.document(CLUSTER, wishes)
    assert got["kubernetes"]["server"] == ["https://lb:443"]
    assert (got["istio"]["discovery"], got["istio"]["san"]) == (["gw:1"], "istiod.example")


@pytest.mark.parametrize(
    ("ingress", "want"),
    [
        ([{"ip": "203.0.113.7"}], ["203.0.113.7:32012"]),
        ([{"hostname": "gw.example"}], ["gw.example:32012"]),
        ([{"ip": "2001:db8::1"}], ["[2001:db8::1]:32012"]),
        ([], []),
    ],
)
def test_istiod_is_where_its_load_balancer_is(
    ingress: list[dict[str, Any]], want: list[str]
) -> None:
    """The port that leads to 15012, on each address."""
    ports = [{"port": 15021}, {"port": 32012, "targetPort": 15012}]
    service = {"spec": {"ports": ports}, "status": {"loadBalancer": {"ingress": ingress}}}
    assert published.addresses(service) == want


def test_drift_names_each_fact_without_quoting_certificates() -> None:
    """One line for each difference."""
    pem = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
    want = {"version": 1, "istio": {"root_ca": pem.format("A" * 80), "network": ""}}
    have = {"version": 1, "istio": {"root_ca": pem.format("B" * 80)}}
    lines = published.drift(want, have)
    assert lines[0] == "istio.network: published nothing, should be empty"
    assert lines[1].startswith("istio.root_ca: published ")
    assert "A" * 40 not in lines[1]
