"""Labels that each VM fills in for itself, as others in the mesh see and use them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import PORT, SERVICE, Fleet

PATIENCE = 30
REQUESTS = 10
DROP_IN = "/etc/vmoor/conf.d/30-place.yaml"
# What stands in the user-data, a template of cloud-init's, of all VMs alike.
LABELS = {
    "vm": {"labels": {"rack": "r-{vm}"}},
    "services": {SERVICE: {"labels": {"zone": "{zone}", "instance": "{instance_id}"}}},
}


def labels_of(fleet: Fleet, vm: Machine) -> Mapping[str, str]:
    found = (fleet.entry(vm) or {}).get("metadata", {}).get("labels", {})
    return {key: found[key] for key in ("rack", "zone", "instance") if key in found}


def place(vm: Machine, locality: str) -> None:
    harness.configure(vm, {"vm": {"locality": locality}}, DROP_IN)
    vm.run("systemctl", "reload", harness.AGENT)


@pytest.fixture(scope="module")
def pair(
    fleet: Fleet, client: Machine, module_vm: Callable[..., Machine]
) -> tuple[Machine, Machine]:
    """Two VMs of one text, not told yet where they are."""
    one, two = module_vm(drop_in=LABELS), module_vm(drop_in=LABELS)
    for vm in (one, two):
        client.wait(lambda vm=vm: fleet.in_mesh(client, vm), harness.PATIENCE, "the endpoint")
    return one, two


@pytest.fixture
def subset(fleet: Fleet) -> Iterator[str]:
    """Requests for the service go to its endpoints in zone eu-1b only; the subset's name."""
    host, name = fleet.host, "near"
    kinds: Mapping[str, Mapping[str, object]] = {
        "DestinationRule": {
            "host": host,
            "subsets": [{"name": name, "labels": {"zone": "eu-1b"}}],
        },
        "VirtualService": {
            "hosts": [host],
            "http": [{"route": [{"destination": {"host": host, "subset": name}}]}],
        },
    }
    for kind, spec in kinds.items():
        body = {
            "apiVersion": "networking.istio.io/v1",
            "kind": kind,
            "metadata": {"name": name, "namespace": fleet.namespace},
            "spec": spec,
        }
        fleet.rig.kubectl("apply", "-f", "-", input=json.dumps(body))
    yield name
    for kind in kinds:
        fleet.rig.kubectl("delete", kind.lower(), name, "-n", fleet.namespace)


def test_what_a_vm_does_not_know_is_left_out_and_told(
    fleet: Fleet, client: Machine, pair: tuple[Machine, Machine]
) -> None:
    """Without a zone the service is in the mesh with its other labels; once told, the label comes
    and the trouble goes.
    """
    for vm in pair:
        assert labels_of(fleet, vm) == {"rack": f"r-{vm.name}", "instance": vm.name}
        words = f"service {SERVICE}: label zone is left out, there is no {{zone}} here"
        harness.told(vm, "discovery", words, remedy="set vm.locality")
        with harness.kept(fleet, client, vm):
            place(vm, "eu-1/eu-1a")
            vm.wait(lambda vm=vm: labels_of(fleet, vm).get("zone") == "eu-1a", PATIENCE, "zone")
        assert harness.step(vm, "discovery")["state"] == "ok"


def test_a_filled_in_label_is_a_subset_for_others(
    fleet: Fleet, client: Machine, pair: tuple[Machine, Machine], subset: str
) -> None:
    """Another VM's proxy sends only to the VMs whose label says so, and follows a change of it."""
    cluster = f"outbound|80|{subset}|{fleet.host}"
    for near, far in (pair, pair[::-1]):
        place(far, "eu-1/eu-1a")
        place(near, "eu-1/eu-1b")
        only = {f"{near.address}:{PORT}"}
        client.wait(lambda only=only: client.endpoints(cluster) == only, PATIENCE, "the subset")
        answers = [fleet.get(client) for _ in range(REQUESTS)]
        assert answers == [(200, near.name)] * REQUESTS
