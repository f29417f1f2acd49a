"""A VM that others reach by an address which is not its own, as behind a cloud's NAT."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.rig.machine import Machine
from tests.rig.process import run
from tests.system import harness
from tests.system.fleet import PORT, Fleet

# RFC 5737: documentation. Only the rig's router knows the way.
PUBLIC, NEXT = "203.0.113.7", "203.0.113.8"
PATIENCE = 30
INSTANCE_DATA = "/run/cloud-init/instance-data.json"


@pytest.fixture
def router(fleet: Fleet) -> Iterator[Callable[[str, Machine], None]]:
    """Lets the rig's bridge translate a public address to a VM's own, for the test."""
    inside = ["ip", "netns", "exec", fleet.rig.network.netns_name]
    forward, redirects = "ip_forward", "conf/all/send_redirects"

    def nat(verb: str, chain: str, *rule: str) -> None:
        run([*inside, "iptables", "-w", "-t", "nat", verb, chain, *rule])

    def switch(name: str, value: int) -> None:
        run([*inside, "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{name}"])

    with ExitStack() as stack:
        stack.callback(switch, forward, 0)
        switch(forward, 1)
        switch(redirects, 0)

        def translate(public: str, vm: Machine) -> None:
            there = ("PREROUTING", "-d", public, "-j", "DNAT", "--to-destination", vm.address)
            # Client and VM are neighbours here: without it the VM's answer takes the short way.
            back = ("POSTROUTING", "-d", vm.address, "-m", "conntrack", "--ctstate", "DNAT",
                    "-j", "MASQUERADE")  # fmt: skip
            for rule in (there, back):
                nat("-A", *rule)
                stack.callback(nat, "-D", *rule)

        yield translate


def test_others_reach_it_by_the_public_address(
    fleet: Fleet,
    client: Machine,
    vm: Callable[..., Machine],
    router: Callable[[str, Machine], None],
) -> None:
    """`vm.address: cloud-public`: requests by mTLS arrive through the NAT and are HTTP to the
    VM's own proxy; when the cloud tells another address, entry and proxy follow.
    """
    web = vm(drop_in={"vm": {"address": "cloud-public"}}, meta_data={"public-ipv4": PUBLIC})
    for public in (PUBLIC, NEXT):
        router(public, web)
    harness.wait_moored(web)
    _served_at(fleet, client, web, PUBLIC)
    proxy = harness.process_of(web, harness.PROXY)
    told = json.loads(web.read(INSTANCE_DATA))
    told["ds"]["meta_data"]["public-ipv4"] = NEXT
    web.write(INSTANCE_DATA, json.dumps(told))
    web.run("ip", "address", "add", "192.0.2.1/32", "dev", "eth0")  # what comes with it
    client.wait(
        lambda: f"{PUBLIC}:{PORT}" not in client.endpoints(fleet.cluster), 10, "the old to go"
    )
    web.wait(lambda: harness.process_of(web, harness.PROXY) != proxy, PATIENCE, "its restart")
    harness.wait_moored(web)
    _served_at(fleet, client, web, NEXT)


def _served_at(fleet: Fleet, client: Machine, web: Machine, public: str) -> None:
    client.wait(
        lambda: client.endpoints(fleet.cluster) == {f"{public}:{PORT}"}, PATIENCE, "the endpoint"
    )
    client.wait(lambda: fleet.get(client) == (200, web.name), PATIENCE, "an answer")
    taken = f"\ninbound|{PORT}||::{web.address}:{PORT}::rq_success::"
    web.wait(lambda: taken in "\n" + web.curl_envoy("/clusters"), 5.0, "its inbound side")


def test_a_cloud_that_tells_none_is_told(fleet: Fleet, vm: Callable[..., Machine]) -> None:
    """The VM is not in the mesh under some other address; the step says what to set."""
    web = vm(drop_in={"vm": {"address": "cloud-public"}})
    words = "cannot tell this VM's public address: cloud-init tells none"
    harness.told(web, "discovery", words, remedy="set vm.address")
    assert fleet.entry(web) is None
