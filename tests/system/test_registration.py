"""What stands in the cluster for a VM, kept right against everybody, and its services' health."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests import stage
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, SERVICE, Fleet
from tests.system.harness import AGENT, PROXY
from tests.system.history import History, condition

DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"
AT_ONCE = 1.0  # seconds; the bench measures the real figures
API_PORT = 9090
API = {"port": API_PORT, "unit": "api.service"}
API_UNIT = """\
[Service]
ExecStart=/usr/bin/python3 /usr/share/shop/web.py 9090
Restart=always
RestartSec=500ms
"""

Reload = Callable[..., None]


@pytest.fixture
def reload(fleet: Fleet, web: Machine) -> Iterator[Reload]:
    """Adds keys to the configuration and reloads it; without keys takes them out again."""

    def reload(**more: Any) -> None:
        if more:
            harness.configure(web, more, DROP_IN)
        else:
            web.run("rm", "-f", DROP_IN)
        web.run("systemctl", "reload", AGENT)

    yield reload
    reload()
    web.wait(lambda: _services(web) == [SERVICE], 20, "its one service")
    web.wait(lambda: fleet.entry(web, "api") is None, 20, "the other entry to go", period=0.1)
    harness.wait_moored(web)


@pytest.fixture(scope="module")
def api_cluster(fleet: Fleet, web: Machine) -> str:
    """A second application on the VM, and its ServiceEntry; the name of Envoy's cluster."""
    host = f"api.{fleet.name}.mesh"
    fleet.owner.sh(
        f"vmoor admin service-entry --namespace {fleet.namespace} --service api --host {host}"
        " --port 80:http --vip 240.240.2.1 | kubectl apply -f -"
    )
    web.write("/etc/systemd/system/api.service", API_UNIT)
    web.sh("systemctl daemon-reload; systemctl start api")
    return f"outbound|80||{host}"


def _services(vm: Machine) -> list[str]:
    return [service["name"] for service in harness.document(vm).get("services", ())]


def _kubectl(fleet: Fleet, verb: str, name: str, *more: str) -> None:
    fleet.rig.kubectl(verb, "workloadentry", name, "-n", fleet.namespace, *more)


# Kept right


def test_an_entry_carries_what_the_mesh_needs(fleet: Fleet, web: Machine) -> None:
    """Labels of the workload, the owner mark, the account, and the switch for health."""
    entry, lease = fleet.entry(web), fleet.lease(web)
    assert entry is not None
    assert lease is not None
    mark = {
        "app.kubernetes.io/managed-by": "vmoor",
        "vmoor.io/vm": web.name,
        "vmoor.io/service-account": fleet.account,
    }
    labels = entry["metadata"]["labels"]
    assert {**labels, **mark, "vmoor.io/service": SERVICE} == labels
    assert labels["service.istio.io/canonical-name"] == fleet.name
    assert {**lease["metadata"]["labels"], **mark} == lease["metadata"]["labels"]
    annotations = entry["metadata"]["annotations"]
    assert annotations["proxy.istio.io/health-checks-enabled"] == "true"
    assert annotations["vmoor.io/holder"] == lease["spec"]["holderIdentity"]
    spec = entry["spec"]
    assert spec["address"] == web.address
    assert spec["ports"] == {"http": PORT}
    assert spec["serviceAccount"] == fleet.account
    assert "ownerReferences" not in entry["metadata"]
    assert "ownerReferences" not in lease["metadata"]
    assert lease["spec"]["leaseDurationSeconds"] == 10


def test_an_entry_follows_the_configuration(fleet: Fleet, web: Machine, reload: Reload) -> None:
    """Locality, network, weight and labels come and go with it, without a restart."""
    mount, _, path = fleet.mesh.partition("/")
    wanted = {"locality": "eu-west-1/eu-west-1a", "network": "net-b", "weight": 7}
    with harness.unharmed(web, AGENT, PROXY):
        reload(
            vm={"locality": wanted["locality"], "labels": {"rack": "r1"}},
            mesh={"vault_kv": {"mount": mount, "path": path}, "network": wanted["network"]},
            services={SERVICE: {"weight": wanted["weight"], "labels": {"track": "canary"}}},
        )

        def told() -> tuple[dict[str, Any], dict[str, Any]]:
            entry = fleet.entry(web)
            assert entry is not None
            return entry["metadata"]["labels"], entry["spec"]

        def follows() -> bool:
            labels, spec = told()
            named = (labels.get("rack"), labels.get("track")) == ("r1", "canary")
            return named and {**spec, **wanted} == spec

        web.wait(follows, 20, "the entry to follow", period=0.1)
        reload()

        def is_back() -> bool:
            labels, spec = told()
            return not {"rack", "track"} & set(labels) and not set(wanted) & set(spec)

        web.wait(is_back, 20, "the entry to be as before", period=0.1)


CHANGES = {
    "edited": {"spec": {"address": "198.18.99.99", "serviceAccount": "other"}},
    "relabelled": {"metadata": {"labels": {"vmoor.io/service": "other"}}},
    "said to be sick": {"status": {"conditions": []}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_entry_that_somebody_changed_is_repaired(
    fleet: Fleet, client: Machine, web: Machine, change: str
) -> None:
    """What a person wrote into an own entry is put right within a second."""

    def right() -> bool:
        entry = fleet.entry(web)
        assert entry is not None
        said, labels = entry["spec"], entry["metadata"]["labels"]
        return (
            (said["address"], said["serviceAccount"]) == (web.address, fleet.account)
            and labels["vmoor.io/service"] == SERVICE
            and harness.healthy(entry)
        )

    before = harness.uid(fleet.entry(web))
    with harness.unharmed(web, AGENT, PROXY):
        patch = json.dumps(CHANGES[change])
        _kubectl(fleet, "patch", f"{SERVICE}.{web.name}", "--type=merge", "-p", patch)
        assert web.wait(right, harness.PATIENCE, "the repair") <= AT_ONCE
    assert harness.uid(fleet.entry(web)) == before
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_an_entry_that_somebody_deleted_is_made_again(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Back and healthy within a second."""
    before = harness.uid(fleet.entry(web))
    with harness.unharmed(web, AGENT, PROXY):
        _kubectl(fleet, "delete", f"{SERVICE}.{web.name}", "--wait=false")
        took = web.wait(lambda: harness.healthy(fleet.entry(web)), harness.PATIENCE, "the entry")
        assert took <= AT_ONCE
    assert harness.uid(fleet.entry(web)) != before
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_a_foreign_entry_of_the_same_name_is_never_touched(
    fleet: Fleet, client: Machine, web: Machine, reload: Reload, api_cluster: str
) -> None:
    """It is told, the other service goes on, and the name is taken once it is free."""
    name = f"api.{web.name}"
    foreign = {
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": name, "namespace": fleet.namespace, "labels": {"app": "other"}},
        "spec": {"address": "198.18.99.99"},
    }  # fmt: skip
    fleet.rig.kubectl("create", "-f", "-", input=json.dumps(foreign))
    made = fleet.entry(web, "api")
    with harness.kept(fleet, client, web):
        reload(services={"api": API})
        found = harness.told(
            web, "registration", "cannot register api: it is not vmoor's",
            remedy=f"delete workloadentry {name}",
        )  # fmt: skip
        harness.beats(fleet, web, 2)
        assert fleet.entry(web, "api") == made
        fleet.owner.sh(found["remedy"].partition(",")[0])
        web.wait(lambda: harness.healthy(fleet.entry(web, "api")), harness.PATIENCE, "api")
        harness.wait_moored(web)


def test_who_nearly_selects_a_service_is_told(
    fleet: Fleet, client: Machine, web: Machine, reload: Reload
) -> None:
    """Without the right to look, what is known; with it the nearest ServiceEntry, on the VM and in
    the entry; and the command told with it puts the service into the mesh."""
    host = f"lone.{fleet.name}.mesh"
    own = f"--namespace {fleet.namespace}"
    fleet.owner.sh(
        f"vmoor admin service-entry {own} --service lon --host {host} --port 80:http"
        " --vip 240.240.2.2 | kubectl apply -f -"
    )
    web.run("systemd-run", "--unit=lone", "/usr/bin/python3", "/usr/share/shop/web.py", "9191")
    with harness.kept(fleet, client, web):
        reload(services={"lone": {"port": 9191}})
        _told_of(web, "lone is in no list of this VM's own proxy")
        fleet.owner.sh(
            f"vmoor admin manifests {own} --service-account {fleet.account} --with-selectors"
            " | kubectl apply -f -"
        )
        near = "lone is selected by nobody: ServiceEntry/lon selects vmoor.io/service=lon"
        remedy = _told_of(web, near)
        assert harness.moored(web)
        waited = web.run("vmoor", "wait", "--for=reachable", "--timeout=1", check=False)
        assert (waited.returncode, near in waited.stderr) == (1, True), waited.stderr
        assert _selected(fleet, web) == ("False", f"{near}: {remedy}")
        fleet.owner.sh(remedy)
        endpoint = f"{web.address}:9191"
        client.wait(lambda: endpoint in client.endpoints(f"outbound|80||{host}"), 20, "lone")
        web.run("vmoor", "wait", "--for=reachable", "--timeout=20")
        web.wait(lambda: _selected(fleet, web)[0] == "True", 20, "the entry to tell")
        # Nothing of the VM's changes: it is seen at the next look.
        fleet.owner.sh(remedy.replace('"lone"', '"lon"'))
        assert _told_of(web, near) == remedy
    web.run("systemctl", "stop", "lone")


def _told_of(vm: Machine, words: str) -> str:
    """Wait for this in STATUS= and in `vmoor status`; the remedy."""
    vm.wait(lambda: words in harness.status_text(vm), harness.PATIENCE, words, period=0.1)
    shown = vm.run("vmoor", "status")
    assert words in shown.stdout
    remedy = shown.stdout.rpartition("Fix:  ")[2].strip()
    assert remedy in harness.status_text(vm)
    return remedy


def _selected(fleet: Fleet, vm: Machine) -> tuple[str, str]:
    entry = fleet.entry(vm, "lone")
    assert entry is not None
    found = {c["type"]: c for c in entry["status"]["conditions"]}
    assert found["Healthy"]["status"] == "True"
    return found["vmoor.io/Selected"]["status"], found["vmoor.io/Selected"]["message"]


def test_beats_push_nothing(fleet: Fleet, client: Machine, web: Machine) -> None:
    """By istiod's own counters: 20 s of heartbeats of two VMs cause no push and no update."""
    counted = fleet.rig.istiod.pushes
    before: dict[str, float] = {}

    def settled() -> bool:
        last = dict(before)
        before.clear()
        before.update(counted())
        return last == before

    web.wait(settled, 30, "istiod to be quiet", period=1.0)
    assert any(name.startswith("pilot_xds_pushes") for name in before)
    harness.beats(fleet, web, 7)
    assert counted() == before


# Health


def test_each_service_has_its_own_health(
    fleet: Fleet, client: Machine, web: Machine, reload: Reload, api_cluster: str
) -> None:
    """A second service comes by a drop-in and SIGHUP; its death takes only itself out."""
    endpoint = f"{web.address}:{API_PORT}"

    def served() -> bool:
        return endpoint in client.endpoints(api_cluster)

    with harness.kept(fleet, client, web):
        reload(services={"api": API})
        client.wait(served, 20, "the second endpoint")
        web.run("systemctl", "stop", "api")
        client.wait(lambda: not served(), 20, "the second endpoint to go")
        assert fleet.in_mesh(client, web)
        assert condition(fleet.entry(web, "api"))["reason"] == "UnitDead"
        assert fleet.get(client) == (200, web.name)
        web.run("systemctl", "start", "api")
        client.wait(served, 20, "the second endpoint again")


def test_a_service_that_is_no_longer_declared_goes_in_order(
    fleet: Fleet, client: Machine, web: Machine, reload: Reload, api_cluster: str
) -> None:
    """Healthy=False first, deleted later."""
    with harness.kept(fleet, client, web):
        reload(services={"api": API})
        web.wait(lambda: harness.healthy(fleet.entry(web, "api")), 20, "the second entry")
        history = History(fleet, web, "api")
        web.wait(lambda: history.words == ["True"], 10, "the history's beginning")
        reload()
        web.wait(lambda: history.words[-1] == "gone", 20, "the deletion")
        assert history.words == ["True", "False", "gone"]


def test_a_failing_check_takes_the_service_out_and_back(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Out once the failures reach the threshold, with the answer as the reason; back after it."""
    with harness.unharmed(web, AGENT, PROXY, "web.service"):
        web.run("touch", "/run/web-sick")
        client.wait(lambda: not fleet.in_mesh(client, web), 20, "the endpoint to go")
        found = condition(fleet.entry(web))
        assert (found["status"], found["reason"]) == ("False", "CheckFailed")
        assert "503" in found["message"]
        web.run("rm", "/run/web-sick")
        client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def test_one_failure_below_the_threshold_changes_nothing(
    fleet: Fleet, client: Machine, web: Machine, reload: Reload
) -> None:
    """Ten failures are allowed: after the first ones the service is still in the mesh."""
    check = {"http": "/healthz", "period": "1s", "failure_threshold": 10}
    with harness.kept(fleet, client, web):
        since = _service(web)["since"]
        reload(services={SERVICE: {"checks": [check]}})
        # The first look at a new check decides alone.
        web.wait(lambda: _service(web)["since"] != since and harness.moored(web), 20, "a look")
        web.run("touch", "/run/web-sick")
        try:
            web.wait(lambda: "/10)" in _service(web)["words"], 20, "a failure", period=0.1)
        finally:
            web.run("rm", "/run/web-sick")
        web.wait(lambda: "200" in _service(web)["words"], 20, "a success", period=0.1)


def _service(vm: Machine) -> dict[str, Any]:
    return dict(harness.document(vm)["services"][0])


def test_a_killed_service_is_out_at_once(fleet: Fleet, client: Machine, web: Machine) -> None:
    """kill -9 of the unit: out of another VM's Envoy within a second, back after the restart."""
    history = History(fleet, web)
    with harness.unharmed(web, AGENT, PROXY):
        client.wait(lambda: history.words == ["True"], 10, "the history's beginning")
        stage.kill_main(web, "web.service")
        took = client.wait(lambda: not fleet.in_mesh(client, web), 20, "the endpoint to go")
        assert took <= AT_ONCE
        client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
        assert history.words == ["True", "False", "True"]


def test_a_restarted_service_stays_out_while_it_warms_up(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """It listens again and answers 503: that its check passed before the kill counts no more."""
    history = History(fleet, web)
    with harness.unharmed(web, AGENT, PROXY):
        client.wait(lambda: history.words == ["True"], 10, "the history's beginning")
        web.run("touch", "/run/web-sick")
        try:
            stage.kill_main(web, "web.service")
            web.wait(lambda: _service(web)["words"].startswith("503, want"), 20, "a failure")
            web.wait(lambda: _service(web)["health"] == "unhealthy", 20, "the verdict")
            assert history.words == ["True", "False"]
        finally:
            web.run("rm", "/run/web-sick")
        client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")
        assert history.words == ["True", "False", "True"]
