"""A VM leaves while it is used: nobody notices, whatever made it leave."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Callable, Optional

import pytest

from tests import stage
from tests.load import Load
from tests.rig import inside
from tests.rig.machine import Machine
from tests.streams import Client, Server
from tests.system import harness
from tests.system.fleet import SERVICE, Fleet
from tests.system.harness import AGENT, PROXY

OUT_S = 0.5  # from the signal to the end of the endpoint in another VM's Envoy
LOOK_S = 0.02
STREAM_PORT = 9000
ORDER = "/etc/systemd/system/vmoor.service.d/10-web.service.conf"
DROP_IN = "/etc/vmoor/conf.d/20-test.yaml"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"


@pytest.fixture(scope="module", autouse=True)
def _no_retries(fleet: Fleet) -> None:
    fleet.without_retries()


@pytest.fixture(scope="module")
def leaver(fleet: Fleet, client: Machine, module_vm: Callable[..., Machine]) -> Machine:
    """The VM that leaves, beside `web`, which stays."""
    return module_vm()


def back(fleet: Fleet, client: Machine, vm: Machine) -> None:
    harness.wait_moored(vm)
    client.wait(lambda: fleet.in_mesh(client, vm), harness.PATIENCE, "the endpoint")


class Gone:
    """Watches in a thread for the endpoint's end in the client's Envoy; `at` is Unix seconds."""

    def __init__(self, fleet: Fleet, client: Machine, vm: Machine) -> None:
        self.at: Optional[float] = None
        self._look = lambda: fleet.in_mesh(client, vm)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self._look():
            time.sleep(LOOK_S)
        self.at = time.time()


SIGNALS = (f"Stopping {AGENT}", "The machine goes down")  # systemd's word, logind's


def signalled(vm: Machine, began: float) -> float:
    """When the agent was first told to go since then, Unix seconds."""
    year = datetime.now(timezone.utc).year
    found = []
    for line in vm.journal(AGENT).splitlines():
        if any(words in line for words in SIGNALS):
            month, day, at = re.split(r"\s+", line)[:3]
            text = f"{year} {month} {day} {at} +0000"
            found.append(datetime.strptime(text, "%Y %b %d %H:%M:%S.%f %z").timestamp())
    return min(at for at in found if at > began)


def stop(vm: Machine) -> None:
    vm.run("systemctl", "stop", "vmoor")


def start(vm: Machine) -> None:
    vm.run("systemctl", "start", "vmoor")


def power_fails(vm: Machine) -> None:
    vm.run("kill", "-s", "PWR", "1")
    vm.wait(lambda: vm.unit_property(AGENT, "ActiveState") == "inactive", 20, "its stop")


def poweroff_unordered(vm: Machine) -> None:
    """The application is stopped without regard to the agent: only logind's delay is left."""
    vm.sh(f"mv {ORDER} {ORDER}.away; systemctl daemon-reload")
    vm.poweroff()


def boot_ordered(vm: Machine) -> None:
    vm.boot()
    vm.sh(f"mv {ORDER}.away {ORDER}; systemctl daemon-reload")


VERBS: dict[str, tuple[Callable[[Machine], object], Callable[[Machine], object]]] = {
    "stop": (stop, start),
    "reboot": (Machine.reboot, lambda _: None),
    "poweroff": (Machine.poweroff, Machine.boot),
    "poweroff of an application that knows nothing": (poweroff_unordered, boot_ordered),
    "SIGPWR": (power_fails, start),
    "apt remove": (
        lambda vm: vm.sh(f"{APT} remove vmoor", timeout=120),
        lambda vm: vm.sh(f"{APT} install vmoor", timeout=120),
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_request_fails_when_a_vm_leaves(
    fleet: Fleet, client: Machine, web: Machine, leaver: Machine, verb: str,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    """200 requests a second, none of them tried twice: none fails, and the endpoint is out within
    half a second of the signal."""
    away, again = VERBS[verb]
    back(fleet, client, leaver)
    with Load(client, fleet.vip, fleet.host) as load:
        client.wait(lambda: len(load.spread()) == 2 and len(load.answers) > 100, 20, "answers")
        gone = Gone(fleet, client, leaver)
        began = time.time()
        away(leaver)
        client.wait(lambda: gone.at is not None, 5, "its Envoy to forget the VM")
        assert gone.at is not None
        out = gone.at - signalled(leaver, began)
        begun = len(load.answers)
        client.wait(lambda: len(load.answers) > begun + 200, 20, "a second more")
        assert fleet.entry(leaver) is None or verb == "reboot"
        again(leaver)
        back(fleet, client, leaver)
    record_property("out", round(out, 3))
    record_property("requests", len(load.answers))
    print(f"\n{verb}: out {out:.3f} s after the signal, {len(load.answers)} requests")
    assert load.failed == []
    assert out <= OUT_S


@pytest.mark.parametrize("verb", ["restart", "try-restart", "reload", "reload-or-restart"])
def test_the_other_verbs_do_not_leave(
    fleet: Fleet, client: Machine, web: Machine, leaver: Machine, verb: str
) -> None:
    """Entry, Lease and the proxy's process stay as they are, and no request fails."""
    back(fleet, client, leaver)
    before = harness.uid(fleet.entry(leaver)), harness.uid(fleet.lease(leaver))
    with harness.unharmed(leaver, PROXY), Load(client, fleet.vip, fleet.host) as load:
        leaver.run("systemctl", verb, AGENT)
        harness.beats(fleet, leaver)
        back(fleet, client, leaver)
    assert load.failed == []
    assert (harness.uid(fleet.entry(leaver)), harness.uid(fleet.lease(leaver))) == before


def configured(vm: Machine, **more: object) -> contextlib.AbstractContextManager[None]:
    """These keys are in force while the block runs."""

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        began = harness.now(vm)
        harness.configure(vm, more, DROP_IN)
        vm.run("systemctl", "reload", AGENT)
        vm.wait(
            lambda: "Configuration accepted" in harness.journal_since(vm, began), 20, "it to heed",
            period=0.1,
        )  # fmt: skip
        try:
            yield
        finally:
            vm.run("rm", "-f", DROP_IN)
            vm.run("systemctl", "reload-or-restart", AGENT)

    return block()


def test_a_stop_does_not_leave_when_it_shall_not(
    fleet: Fleet, client: Machine, leaver: Machine
) -> None:
    """leave.on_stop: false: the entry, the Lease and the proxy stay, with a Lease of a minute."""
    with configured(leaver, leave={"on_stop": False}):
        back(fleet, client, leaver)
        with harness.unharmed(leaver, PROXY):
            stop(leaver)
            lease = fleet.lease(leaver)
            assert lease is not None
            assert lease["spec"]["leaseDurationSeconds"] == 60
            assert harness.healthy(fleet.entry(leaver))
            start(leaver)
            harness.wait_moored(leaver)


def test_entries_may_stay_out_of_the_mesh(fleet: Fleet, client: Machine, leaver: Machine) -> None:
    """leave.keep_entries: Healthy=False and a Lease that nobody holds; the next start takes the
    same entry over."""
    with configured(leaver, leave={"keep_entries": True}):
        back(fleet, client, leaver)
        before = harness.uid(fleet.entry(leaver))
        stop(leaver)
        entry, lease = fleet.entry(leaver), fleet.lease(leaver)
        assert harness.uid(entry) == before
        assert not harness.healthy(entry)
        assert lease is not None
        assert lease["spec"].get("holderIdentity", "") == ""
        start(leaver)
        back(fleet, client, leaver)
        assert harness.uid(fleet.entry(leaver)) == before


def test_a_shutdown_that_is_called_off_ends_in_the_mesh(
    fleet: Fleet, client: Machine, leaver: Machine
) -> None:
    """logind announces it, the VM leaves, and nothing follows: the VM moors again by itself."""
    back(fleet, client, leaver)
    # logind asks for a target that cannot be started.
    leaver.write("/run/systemd/system/poweroff.target.d/x.conf", "[Unit]\nRequires=no.target\n")
    leaver.sh("systemctl daemon-reload")
    leaver.run("systemctl", "poweroff", "--no-block", check=False)
    leaver.wait(lambda: not fleet.in_mesh(client, leaver), 10, "its leave")
    leaver.wait(lambda: harness.document(leaver).get("state") == "left", 10, "its last word")
    back(fleet, client, leaver)
    leaver.sh("rm -r /run/systemd/system/poweroff.target.d; systemctl daemon-reload")


@pytest.fixture(scope="module")
def streams(fleet: Fleet) -> tuple[str, str]:
    """Host and address of the service of streams; also from outside the mesh it may be used."""
    host, vip = f"streams.{fleet.name}.mesh", "240.240.4.1"
    fleet.owner.sh(
        f"vmoor admin service-entry --namespace {fleet.namespace} --service streams"
        f" --host {host} --port 80:grpc --vip {vip} | kubectl apply -f -"
    )
    plain = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": fleet.namespace},
        "spec": {"mtls": {"mode": "PERMISSIVE"}},
    }
    fleet.rig.kubectl("apply", "-f", "-", input=json.dumps(plain))
    return host, vip


@contextlib.contextmanager
def streaming(
    fleet: Fleet, client: Machine, leaver: Machine, streams: tuple[str, str], drain: str
) -> Iterator[tuple[Server, Client, Client]]:
    """The application on the leaver; a client in the mesh, and one outside of it."""
    host, vip = streams
    listener = inside.call(
        leaver.port.netns_path, lambda: socket.create_server(("0.0.0.0", STREAM_PORT))
    )
    ports = {"services": {"streams": {"ports": {"grpc": STREAM_PORT}, "checks": [{"tcp": True}]}}}
    with Server(listener) as server, configured(leaver, drain={"timeout": drain}, **ports):
        back(fleet, client, leaver)
        listed = f"{leaver.address}:{STREAM_PORT}"
        client.wait(lambda: listed in client.endpoints(host), harness.PATIENCE, "the streams")
        leaver.wait(
            lambda: f"inbound|{STREAM_PORT}||::" in leaver.curl_envoy("/clusters"), 20, "its side"
        )
        inner, outer = client.socket(), inside.call(fleet.rig.network.netns_path, socket.socket)
        for link, address in ((inner, (vip, 80)), (outer, (leaver.address, STREAM_PORT))):
            link.settimeout(5.0)
            link.connect(address)
        try:
            with Client(inner, host) as first, Client(outer, host) as second:
                for each in (first, second):
                    leaver.wait(lambda each=each: each.live.pieces > 3, 10, "pieces")  # type: ignore[misc]
                yield server, first, second
        finally:
            start(leaver)


def test_long_streams_may_finish(
    fleet: Fleet, client: Machine, leaver: Machine, streams: tuple[str, str]
) -> None:
    """A stream that ends 3 s after the stop ends well, in the mesh and outside; the client's own
    connection gets a GOAWAY at once; the agent waits no longer than for the last."""
    with streaming(fleet, client, leaver, streams, "20s") as (server, inner, outer):
        began = time.monotonic()
        stopping = threading.Thread(target=stop, args=(leaver,))
        stopping.start()
        leaver.wait(lambda: outer.goaway, 3, "the GOAWAY")
        time.sleep(max(0.0, began + 3 - time.monotonic()))
        pieces = inner.live.pieces, outer.live.pieces
        server.finish.set()
        stopping.join(20)
        took = time.monotonic() - began
        assert outer.goaway is not None
        print(f"\nGOAWAY {outer.goaway - began:.2f} s after the stop, which took {took:.2f} s")
        assert min(pieces) > 30
        for each in (inner, outer):
            leaver.wait(lambda each=each: each.live.ended, 2, "the end")  # type: ignore[misc]
        assert inner.broken == outer.broken == []
        assert 3 <= took < 8


def test_a_stream_that_does_not_end_is_cut_at_the_limit(
    fleet: Fleet, client: Machine, leaver: Machine, streams: tuple[str, str]
) -> None:
    """Not before drain.timeout, and the stop takes hardly longer."""
    with streaming(fleet, client, leaver, streams, "4s") as (_, inner, outer):
        began = time.monotonic()
        stop(leaver)
        took = time.monotonic() - began
        assert 4 <= took < 6
        leaver.wait(lambda: inner.live.broken and outer.live.broken, 20, "the cut")
        for stream in (inner.live, outer.live):
            assert stream.broken is not None
            assert stream.broken - began >= 4


def test_who_is_served_by_a_proxy_that_dies_is_told(
    fleet: Fleet, client: Machine, leaver: Machine, streams: tuple[str, str]
) -> None:
    """kill -9 of pilot-agent: Envoy ends before the capture rules, and with them the translation
    of what is open, go; a stream that lost its end would hang for ever."""
    with streaming(fleet, client, leaver, streams, "4s") as (_, inner, outer):
        leaver.run("pkill", "-9", "-x", "pilot-agent")
        leaver.wait(lambda: inner.live.broken and outer.live.broken, 5, "both streams' end")


def test_a_killed_leave_is_finished_by_the_next_start(
    fleet: Fleet, client: Machine, leaver: Machine, streams: tuple[str, str]
) -> None:
    """kill -9 amid the drain: the VM is out, nothing is served by nobody; a start brings it back
    with another proxy, since the old one would drain for ever."""
    back(fleet, client, leaver)
    entry = harness.uid(fleet.entry(leaver, SERVICE))
    with streaming(fleet, client, leaver, streams, "30s"):
        proxy = harness.process_of(leaver, PROXY)["InvocationID"]
        leaver.run("systemctl", "stop", "--no-block", AGENT)
        leaver.wait(lambda: "request" in harness.status_text(leaver), 10, "the drain", period=0.05)
        stage.kill_main(leaver, AGENT)
        leaver.wait(
            lambda: leaver.unit_property(AGENT, "ActiveState") == "failed", 10, "its end",
            period=0.1,
        )  # fmt: skip
        assert not harness.healthy(fleet.entry(leaver))
        assert not fleet.in_mesh(client, leaver)
    back(fleet, client, leaver)
    assert harness.uid(fleet.entry(leaver, SERVICE)) == entry
    assert harness.process_of(leaver, PROXY)["InvocationID"] != proxy
