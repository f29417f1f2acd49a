"""Bad days of the API server: told, survived without losing the mesh, over without a restart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Callable
from urllib.parse import urlsplit

import pytest

from tests import mesh_setup
from tests.rig.faults import FaultProxy
from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import SERVICE, Fleet
from tests.system.history import History

BEATS = "PUT .*/leases/"
LATE = "no complete answer within"
REACH = "reach the API server, or mend kubernetes.server"

OUTAGES = {
    "500": (lambda kube: kube.status(500), "status 500", ""),
    "hangs": (lambda kube: kube.hang(), LATE, REACH),
    "drips": (lambda kube: kube.drip(0.5), LATE, REACH),
}


@pytest.fixture(scope="module")
def cold(module_vm: Callable[..., Machine]) -> Machine:
    """A VM that waits for a SecretID, for tests that begin by harness.cold_start."""
    return module_vm(secret_id="none")


class Unprepared(Fleet):
    """Vault knows it, nobody has applied `vmoor admin manifests` to the cluster."""

    def set_up(self) -> None:
        self.owner.run("sh", "-c", mesh_setup.documented())
        self.publish()


@pytest.fixture
def unprepared(fleet: Fleet) -> Iterator[Unprepared]:
    with Unprepared(fleet.stage, "late") as late:
        yield late


def test_a_moored_vm_has_two_connections(fleet: Fleet, web: Machine) -> None:
    """One that is kept, and that of its watch: of ten thousand VMs the API server has 20 000."""
    port = f":{urlsplit(fleet.kube.url).port:04X} 01"
    web.wait(lambda: _open(web, port) == 2, 20, "two connections")
    harness.beats(fleet, web, 3)
    assert _open(web, port) == 2


def _open(vm: Machine, remote: str) -> int:
    """Established connections whose other side ends like this in /proc/net/tcp."""
    return sum(remote in line for line in vm.run("cat", "/proc/net/tcp").stdout.splitlines())


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_changes_nothing_in_the_mesh(
    fleet: Fleet, client: Machine, web: Machine, outage: str
) -> None:
    """Errors, silence and dripping answers: told with the step, nothing removed, recovers."""
    begin, words, remedy = OUTAGES[outage]
    with harness.kept(fleet, client, web):
        begin(fleet.kube)
        harness.told(web, "heartbeat", words, remedy=remedy)
        fleet.kube.clear()
        harness.wait_moored(web)
        harness.beats(fleet, web)


def test_an_outage_longer_than_the_lease_removes_nothing(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """With the lease lapsed the VM says so, its endpoint stays, and it beats again by itself."""
    with harness.kept(fleet, client, web):
        fleet.kube.refuse()
        harness.told(web, "heartbeat", "connection refused", remedy=REACH)
        web.wait(lambda: not harness.document(web)["heartbeat"]["held"], 30, "the lapse")
        assert fleet.in_mesh(client, web)
        assert fleet.get(client) == (200, web.name)
        fleet.kube.clear()
        harness.wait_moored(web)
        harness.beats(fleet, web)


def test_only_the_newest_word_is_written_when_an_outage_ends(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """Nothing when the service is as before, one write when it is not."""
    history = History(fleet, web)
    client.wait(lambda: history.words == ["True"], 10, "the history's beginning")
    try:
        for states in ((True, False), (True, False, True)):
            before = len(history.writes)
            fleet.kube.refuse()
            for sick in states:
                web.sh("touch /run/web-sick" if sick else "rm /run/web-sick")
                web.wait(lambda sick=sick: _sick(web) is sick, 20, "a verdict", period=0.05)
            fleet.kube.clear()
            client.wait(lambda sick=sick: fleet.in_mesh(client, web) is not sick, 20, "the truth")
            harness.beats(fleet, web, 3)
            assert len(history.writes) == before + sick
        assert history.words == ["True", "False"]
    finally:
        web.run("rm", "-f", "/run/web-sick")
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def _sick(vm: Machine) -> bool:
    return bool(harness.document(vm)["services"][0]["health"] == "unhealthy")


def test_a_throttled_agent_obeys_retry_after(fleet: Fleet, client: Machine, web: Machine) -> None:
    """429 with Retry-After: 4 is not asked again before 4 s are over."""
    with harness.kept(fleet, client, web):
        fleet.kube.status(429, {"Retry-After": "4"}, match=BEATS)
        harness.told(web, "heartbeat", "status 429")
        web.wait(lambda: len(_refused(fleet.kube)) > 2, 30, "three refused beats")
        gaps = [b - a for a, b in itertools.pairwise(_refused(fleet.kube))]
        assert min(gaps) >= 3.95, gaps
        fleet.kube.clear()
        harness.wait_moored(web)
        harness.beats(fleet, web, 1)


def _refused(kube: FaultProxy) -> list[float]:
    return [seen.at for seen in kube.seen if seen.fate == "status"
            and "/leases/" in seen.request and seen.request.startswith("PUT")]  # fmt: skip


def test_a_taken_right_is_named_and_its_return_noticed(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """403: which right is missing, and the command that was told brings it back."""
    with harness.kept(fleet, client, web):
        fleet.rig.kubectl("delete", "rolebindings", "--all", "-n", fleet.namespace)
        words = f"no right to update leases for {fleet.account}-vmoor"
        found = harness.told(web, "heartbeat", words, remedy="vmoor admin manifests")
        fleet.owner.sh(found["remedy"])
        harness.wait_moored(web)
        harness.beats(fleet, web, 1)


def test_what_happened_while_the_watch_was_cut_is_repaired(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """An entry that was deleted meanwhile is back, and the next change is seen as before."""
    with harness.unharmed(web, harness.AGENT, harness.PROXY):
        fleet.kube.refuse()
        _delete_entry(fleet, web)
        fleet.kube.clear()
        web.wait(lambda: harness.healthy(fleet.entry(web)), 30, "the entry's return")
        _delete_entry(fleet, web)
        web.wait(lambda: harness.healthy(fleet.entry(web)), 30, "the entry's second return")
    client.wait(lambda: fleet.in_mesh(client, web), 20, "the endpoint")


def _delete_entry(fleet: Fleet, vm: Machine) -> None:
    name = f"{SERVICE}.{vm.name}"
    fleet.rig.kubectl("delete", "workloadentry", name, "-n", fleet.namespace, "--wait=false")


def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    fleet: Fleet, cold: Machine
) -> None:
    """A VM that has never been moored moors when the server comes."""
    fleet.kube.refuse()
    harness.cold_start(cold, fleet.config(), fleet.secret_id())
    harness.told(cold, "heartbeat", "connection refused", remedy=REACH)
    with harness.unharmed(cold):
        fleet.kube.clear()
        harness.wait_moored(cold)


def test_a_missing_service_account_is_named(fleet: Fleet, cold: Machine) -> None:
    """No token can be minted: the account and the command that creates it are told."""
    fleet.rig.kubectl("delete", "serviceaccount", fleet.account, "-n", fleet.namespace)
    harness.cold_start(cold, fleet.config(), fleet.secret_id())
    words = f'serviceaccounts "{fleet.account}" not found'
    harness.told(cold, "identity", words, remedy="vmoor admin manifests")
    with harness.unharmed(cold):
        _apply_manifests(fleet)
        harness.wait_moored(cold)


def test_a_missing_namespace_is_named(unprepared: Unprepared, cold: Machine) -> None:
    """As for the account; all that is missing is created by the command that is told."""
    harness.cold_start(cold, unprepared.config(), unprepared.secret_id())
    words = f"service account token for {unprepared.namespace}/"
    harness.told(cold, "identity", words, remedy="namespace late .*vmoor admin manifests")
    with harness.unharmed(cold):
        _apply_manifests(unprepared)
        harness.wait_moored(cold)


def _apply_manifests(fleet: Fleet) -> None:
    fleet.owner.sh(
        f"vmoor admin manifests --namespace {fleet.namespace} --service-account {fleet.account}"
        " | kubectl apply -f -"
    )
