"""What a Consul agent declares, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from vmoor.config import labels
from vmoor.model import catalog
from vmoor.model.discovered import Found
from vmoor.model.health import Probe
from vmoor.model.service import Check, Service, ToldProbe

CHECKS = (Check("consul", ToldProbe(), failure_threshold=1),)
PASSING = Probe(passed=True, words="consul: passing")


def service(name: str = "web", **more: Any) -> dict[str, Any]:
    """As Consul 1.8 answers."""
    return {
        "ID": name, "Service": name, "Tags": ["vmoor"], "Meta": {}, "Port": 8080, "Address": "",
        "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": False, **more,
    }  # fmt: skip


def check(status: str, output: str = "out", service: str = "web", **more: Any) -> dict[str, Any]:
    return {
        "Node": "n", "CheckID": f"service:{service}", "Name": "alive", "Status": status,
        "Notes": "", "Output": output, "ServiceID": service, "Type": "http", **more,
    }  # fmt: skip


def found(
    *services: Mapping[str, Any], checks: Sequence[Mapping[str, Any]] = (), tag: str = "vmoor"
) -> Found:
    declared = catalog.declared({each["ID"]: each for each in services})
    return catalog.found(declared, catalog.said(checks), tag, labels.refusal)


def test_a_service_as_consul_has_it() -> None:
    """Port, labels, weight, port name and protocol come from where people put them."""
    given = service(
        Tags=["vmoor", "vmoor.label.version=v2", "vmoor.label.example.com/tier=front"],
        Meta={"vmoor-port-name": "grpc", "vmoor-protocol": "GRPC"},
        Weights={"Passing": 5, "Warning": 1},
    )
    assert found(given) == Found(
        (
            Service(
                "web", {"grpc": 8080}, CHECKS, "GRPC",
                {"version": "v2", "example.com/tier": "front"}, 5, source="consul",
            ),
        ),
        {"web": PASSING},
    )  # fmt: skip


def test_what_is_not_said_has_its_default() -> None:
    """The port is named http; Consul's own default weight is none."""
    bare = {"ID": "web", "Service": "web", "Port": 8080, "Tags": None, "Meta": None}
    plain = Service("web", {"http": 8080}, CHECKS, source="consul")
    assert found(bare, tag="").services == (plain,)
    assert found(service()).services == (plain,)


@pytest.mark.parametrize(
    ("more", "tag", "counts"),
    [
        ({"Tags": []}, "vmoor", False),
        ({"Tags": []}, "", True),
        ({"Tags": ["vmoor2"]}, "vmoor", False),
        ({"Tags": ["mesh"]}, "mesh", True),
        ({"Kind": "connect-proxy"}, "", False),
        ({"Kind": "mesh-gateway"}, "", False),
        ({"ID": "x", "Service": "web-sidecar-proxy"}, "", False),
        ({"Meta": {"vmoor-registered": "true"}}, "", False),
    ],
)
def test_which_services_count(more: Mapping[str, Any], tag: str, counts: bool) -> None:
    """Those with the tag; never Consul's own proxies, nor what vmoor registered itself."""
    seen = found(service(**more), tag=tag)
    assert bool(seen.services) is counts
    assert seen.problems == ()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"Service": "My_App"}, r"consul's service My_App \(ID web\) has no name .* rename it"),
        ({"Service": "a" * 64}, r"a{64} .* has no name"),
        ({"Service": "web\n"}, r"has no name"),
        ({"Service": ""}, r"has no name"),
        ({"Port": 0}, r"consul's service web \(ID web\) has no port: declare one"),
        ({"Port": 70000}, r"has no port"),
        ({"Meta": {"vmoor-port-name": "HTTP"}}, r"has a wrong vmoor-port-name: write .* http"),
    ],
)
def test_what_cannot_be_a_service_is_told(more: Mapping[str, Any], words: str) -> None:
    """By name and with the remedy; the others go on."""
    seen = found(service(**more), service("zap", Port=9090))
    assert [each.name for each in seen.services] == ["zap"]
    assert "web" not in seen.told
    (problem,) = seen.problems
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(problem)


@pytest.mark.parametrize(
    "tag", ["vmoor.label.a b=c", "vmoor.label.=x", "vmoor.label.vmoor.io/vm=x"]
)
def test_a_label_that_cannot_be_is_left_out_and_told(tag: str) -> None:
    """The service counts without it: a typo in a tag takes nothing out of the mesh."""
    seen = found(service(Tags=["vmoor", tag, "vmoor.label.version=v2"]))
    assert seen.services[0].labels == {"version": "v2"}
    assert tag in seen.problems[0]


def test_a_name_that_is_declared_twice() -> None:
    """The ID that sorts first counts, with its own checks."""
    seen = found(
        service(ID="web-2", Port=2),
        service(ID="web-1", Port=1),
        checks=[check("critical", service="web-2"), check("passing", service="web-1")],
    )
    assert seen.services[0].ports == {"http": 1}
    assert seen.told == {"web": PASSING}
    assert seen.problems == (
        "consul's service web (ID web-2) is declared twice on this VM: only the ID that sorts "
        "first counts, rename one",
    )


def test_there_is_a_limit() -> None:
    """1 000 services, by name."""
    seen = found(*(service(f"s{i:04}", Port=i + 1) for i in range(1001)))
    assert len(seen.services) == 1000
    assert seen.services[-1].name == "s0999"
    assert "declares 1001 services" in seen.problems[0]
    assert "require_tag" in seen.problems[0]


NODE = {"CheckID": "serfHealth", "Name": "Serf Health Status", "service": "", "Type": ""}
RUN = [
    ([], PASSING),
    ([check("passing")], PASSING),
    ([check("critical", service="other")], PASSING),
    (
        [check("warning", "slow\x1b[31m\nvery")],
        Probe(passed=True, words="consul: warning: alive is warning: slow?[31m very"),
    ),
    (
        [check("warning"), check("critical", "503", CheckID="z")],
        Probe(passed=False, words="consul: alive is critical: 503"),
    ),
    (
        [check("passing"), check("critical", "", Type="script")],
        Probe(passed=False, words="consul: alive is critical"),
    ),
    (
        [check("passing"), check("critical", "gone", **NODE)],
        Probe(passed=False, words="consul: Serf Health Status is critical: gone"),
    ),
    (
        [
            check(
                "critical", "", "", CheckID="_node_maintenance", Name="Node Maintenance Mode",
                Notes="upgrade", Type="maintenance",
            )
        ],
        Probe(
            passed=False, words="consul: Node Maintenance Mode is critical: upgrade",
            reason="Maintenance",
        ),
    ),
    ([check("who knows", "")], Probe(passed=False, words="consul: alive is who knows")),
]  # fmt: skip


@pytest.mark.parametrize(("checks", "probe"), RUN, ids=range(len(RUN)))
def test_checks_make_one_verdict(checks: Sequence[Mapping[str, Any]], probe: Probe) -> None:
    """Its own and the node's: the worst one counts, and what is quoted is printable."""
    assert found(service(), checks=checks).told == {"web": probe}


def test_what_a_check_wrote_is_bounded() -> None:
    """A page of HTML is no sentence."""
    seen = found(service(), checks=[check("critical", "x" * 4096)])
    assert len(seen.told["web"].words) < 300


@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_a_check_that_has_not_run_yet_is_no_news(kind: str) -> None:
    """Consul starts each as critical, also when its agent was restarted beside a good service."""
    fresh = check("critical", "", Type=kind)
    assert found(service(), checks=[fresh]).told == {}
    assert found(service(), checks=[fresh, check("passing", CheckID="a")]).told == {}
    bad = check("critical", "down", CheckID="z")
    assert not found(service(), checks=[fresh, bad]).told["web"].passed


@pytest.mark.parametrize(
    "answer",
    [[], "text", {"a": []}, {"a": {"Service": 1}}, {"a": {"Tags": "x"}}, {"a": {"Port": "80"}},
     {"a": {"Meta": []}}, {"a": {"Tags": [1]}}],
)  # fmt: skip
def test_another_shape_is_refused(answer: Any) -> None:
    """As a whole: half an answer would take services out of the mesh."""
    with pytest.raises(TypeError):
        catalog.declared(answer)


def test_checks_of_another_shape_are_refused() -> None:
    with pytest.raises(TypeError):
        catalog.said([{"CheckID": []}])
