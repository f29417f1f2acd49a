"""Who selects an entry, and who nearly does."""

from __future__ import annotations

import json
import shlex
from typing import Any, Optional

import pytest
from click.testing import CliRunner
from vmoor.cli.admin import admin
from vmoor.model import selection
from vmoor.model.selection import Candidate, Selection

ENTRY = {
    "metadata": {"labels": {"vmoor.io/service": "web", "app": "shop"}},
    "spec": {"ports": {"http": 8080}},
}


def service_entry(
    name: str = "web",
    selects: str = "web",
    port: Optional[dict[str, Any]] = None,
    **more: Any,
) -> Candidate:
    spec = {
        "hosts": [f"{name}.shop.mesh"],
        "ports": [port or {"number": 80, "name": "http"}],
        "resolution": "STATIC",
        "workloadSelector": {"labels": {"vmoor.io/service": selects}},
        **more,
    }
    (made,) = selection.candidates("ServiceEntry", [{"metadata": {"name": name}, "spec": spec}])
    return made


def service(
    name: str = "web", port: Optional[dict[str, Any]] = None, **selector: str
) -> Candidate:
    spec = {"selector": selector, "ports": [port or {"port": 80, "name": "http"}]}
    (made,) = selection.candidates("Service", [{"metadata": {"name": name}, "spec": spec}])
    return made


def judge(*found: Candidate) -> Selection:
    return selection.judge("web", "shop", ENTRY, found)


def patch(remedy: str) -> Any:
    """What `kubectl patch` would send."""
    return json.loads(shlex.split(remedy)[-1])


def test_a_label_that_is_nearly_right() -> None:
    """The nearest candidate is named, and the command makes it select this service."""
    found = judge(service_entry("api", "api"), service_entry("web", "wed"))
    assert (found.status, found.reason) == ("False", "NotSelected")
    assert found.words == "is selected by nobody: ServiceEntry/web selects vmoor.io/service=wed"
    assert found.remedy.startswith("kubectl -n shop patch serviceentry web --type=merge -p ")
    assert patch(found.remedy) == {
        "spec": {"workloadSelector": {"labels": {"vmoor.io/service": "web"}}}
    }


def test_a_label_that_the_entry_has_not_is_taken_out() -> None:
    """What else the selector wants stays, when it is right."""
    labels = {"app": "shop", "tier": "front"}
    found = judge(service_entry(workloadSelector={"labels": labels}))
    assert found.words == "is selected by nobody: ServiceEntry/web selects tier=front"
    assert patch(found.remedy) == {"spec": {"workloadSelector": {"labels": {"tier": None}}}}


@pytest.mark.parametrize("labels", [{"tier": "front"}, {}])
def test_a_selector_never_becomes_empty(labels: dict[str, str]) -> None:
    """An empty one selects nothing; one with our label selects this service."""
    found = judge(service_entry(workloadSelector={"labels": labels}))
    change = patch(found.remedy)["spec"]["workloadSelector"]["labels"]
    assert change == {**dict.fromkeys(labels), "vmoor.io/service": "web"}


def test_the_one_for_another_service_is_no_candidate() -> None:
    """web2 selects web2, however like web that is: changing it would break web2."""
    found = judge(service_entry("web2", "web2"), service_entry("api", "api"))
    assert found.reason == "NotSelected"
    assert found.words == (
        "is selected by nobody: no ServiceEntry or Service of namespace shop selects "
        "vmoor.io/service=web"
    )


def test_the_host_names_a_candidate_too() -> None:
    """shop-entry with host web.shop.mesh is meant for web."""
    found = judge(service_entry("shop-entry", "w", hosts=["web.shop.mesh"]))
    assert "ServiceEntry/shop-entry selects vmoor.io/service=w" in found.words


def test_a_port_of_another_name_leads_nowhere() -> None:
    """80 of port main is not what listens on 8080; the name is mended."""
    found = judge(service_entry(port={"number": 80, "name": "main"}))
    assert (found.status, found.reason) == ("False", "PortMismatch")
    assert found.words == (
        "is selected by ServiceEntry/web, whose ports (main) lead to none of its own (http: 8080)"
    )
    assert patch(found.remedy) == [{"op": "add", "path": "/spec/ports/0/name", "value": "http"}]


@pytest.mark.parametrize(
    "found",
    [
        service_entry(port={"number": 80, "name": "main", "targetPort": 8080}),
        service_entry(port={"number": 8080, "name": "main"}),
        service(port={"port": 80, "targetPort": "http"}, app="shop"),
        service(port={"port": 80, "targetPort": 8080}, app="shop"),
    ],
)
def test_what_selects_and_leads_is_hidden_otherwise(found: Candidate) -> None:
    """Nothing is wrong with the selector: the mesh's owner is not told otherwise."""
    told = judge(found)
    assert (told.status, told.reason) == ("True", "Hidden")
    assert f"is selected by {found}, but not listed" in told.words


def test_without_endpoints_nothing_is_sent() -> None:
    """resolution NONE, which is the default, passes requests on to where they went."""
    spec = service_entry(resolution="NONE")
    found = judge(spec)
    assert found.words == "is selected by ServiceEntry/web, whose resolution is NONE"
    assert patch(found.remedy) == {"spec": {"resolution": "STATIC"}}


def test_a_service_is_not_patched_blindly() -> None:
    """It may select Pods: the line is told, and an editor opened."""
    found = judge(service(app="web"))
    assert found.words == "is selected by nobody: Service/web selects app=web"
    assert found.remedy == "kubectl -n shop edit service web (spec.selector: app: shop)"
    wrong = judge(service(port={"port": 80, "targetPort": "web"}, app="shop"))
    assert wrong.remedy == "kubectl -n shop edit service web (spec.ports[0].targetPort: 8080)"


def test_without_the_right_to_look() -> None:
    """Both reasons are possible, and the command of the more likely one is told."""
    found = selection.judge("web", "shop", ENTRY, None)
    assert (found.status, found.reason) == ("Unknown", "NotListed")
    assert "no ServiceEntry selects vmoor.io/service=web, or a Sidecar hides it" in found.words


@pytest.mark.parametrize("ports", [{"http": 8080}, {"grpc-api": 9090, "main": 7000}])
def test_the_command_that_makes_a_service_entry_is_right(ports: dict[str, int]) -> None:
    """But for the host, which only people know."""
    made = selection.judge("web", "shop", {**ENTRY, "spec": {"ports": ports}}, ())
    command = made.remedy.partition(" | ")[0].replace("HOST", "web.shop.mesh").split()
    result = CliRunner().invoke(admin, command[2:])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "thing",
    [
        {},
        {"metadata": {"name": "web"}},
        {"metadata": {"name": "a;reboot"}, "spec": {}},
        {"metadata": None, "spec": []},
        {"metadata": {"name": "web"}, "spec": {"ports": "x", "workloadSelector": []}},
        {"metadata": {"name": "web"}, "spec": {"ports": [None, {"number": "x"}], "hosts": 7}},
    ],
)
def test_odd_objects_break_nothing(thing: dict[str, Any]) -> None:
    """Other people's objects: no exception, and no name that would be more than one word."""
    for kind in ("ServiceEntry", "Service"):
        found = selection.candidates(kind, [thing])
        assert all(";" not in str(each) for each in found)
        judge(*found)


def test_foreign_text_cannot_leave_its_quotes() -> None:
    """A key of somebody's selector stands in the command as one argument."""
    found = judge(service_entry(workloadSelector={"labels": {"a'; reboot #": "x"}}))
    assert shlex.split(found.remedy)[:-1] == [
        "kubectl", "-n", "shop", "patch", "serviceentry", "web", "--type=merge", "-p",
    ]  # fmt: skip
