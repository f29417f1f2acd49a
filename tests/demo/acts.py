"""What is done to the moored VMs, and what their client felt of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.demo.account import Account, Unseen
from tests.load import Load
from tests.mesh_setup import HOST, NAMESPACE, VIP
from tests.rig import process
from tests.rig.errors import RigError
from tests.rig.machine import Machine
from tests.sources import Api
from tests.stage import CLUSTER, Stage, kill_main

FIRST = "client: curl http://web.shop.mesh/"
PROXIES = "through both proxies: one request id in both access logs"
STRICT = "plain request from outside the mesh to a VM's port 8080"
SPREAD = "load spread over the VMs"
OUT = "kill -9 of web-1's service: out of the client's Envoy"
FAILED = "requests failed meanwhile, Istio's default policy"
BACK = "the service is back: in the client's Envoy again"
RETRIED = "the same kill with `service-entry --retries`: requests failed"
BEAT = "kill -9 of web-1's agent: next beat (its Lease)"
UNTOUCHED = "requests failed meanwhile, and in the second after"
SAME = "web-1's proxy is the same process"
CLAIMS = (FIRST, PROXIES, STRICT, SPREAD, OUT, FAILED, BACK, RETRIED, BEAT, UNTOUCHED, SAME)


@dataclass(frozen=True)
class Acts:
    stage: Stage
    client: Machine
    webs: Sequence[Machine]
    account: Account

    def _load(self) -> Load:
        return Load(self.client, VIP, HOST)

    def first_request(self) -> None:
        self.account.line(FIRST, self._curl)
        self.account.line(PROXIES, self._request_id)
        self.account.line(STRICT, self._plaintext)
        self.account.line(SPREAD, self._spread)

    def _curl(self) -> str:
        began = time.monotonic()
        said = self.client.run("curl", "-sSi", "--max-time", "5", f"http://{HOST}/").stdout
        took = time.monotonic() - began
        status, body = said.split()[1], said.split()[-1]
        if status != "200" or body not in [vm.name for vm in self.webs]:
            raise Unseen(f"the answer was {said!r}")
        return f"200 from {body} in {took * 1e3:.0f} ms"

    def _request_id(self) -> str:
        def shared() -> set[str]:
            wanted, arrived = (
                set().union(*(_request_ids(vm, cluster) for vm in vms))
                for vms, cluster in (([self.client], CLUSTER), (self.webs, "inbound|8080||"))
            )
            return wanted & arrived

        ids = process.wait_until(shared, 5, "one", period=0.2)  # logs are flushed once a second
        return sorted(ids)[0]

    def _plaintext(self) -> str:
        url = f"http://{self.webs[0].address}:8080/"
        try:
            said = self.stage.rig.run("curl", "-sS", "--max-time", "5", url)
        except RigError as e:
            if "reset" in str(e):
                return "reset: mTLS is STRICT"
            raise
        raise Unseen(f"it was answered: {said!r}")

    def _spread(self) -> str:
        with self._load() as load:
            process.wait_until(lambda: len(load.answers) >= 200, 10, "200 answers")
        spread = load.spread()
        if load.failed:
            raise Unseen(f"{_failed(load, 0.0)}: {load.failed[0].body}")
        if set(spread) != {vm.name for vm in self.webs} or min(spread.values()) < 50:
            raise Unseen(f"the answers came from {spread}")
        return ", ".join(f"{name} {count}" for name, count in spread.items())

    def kill_service(self) -> None:
        with self._load() as load:
            time.sleep(0.5)
            at = kill_main(self.webs[0], "web.service")
            if self.account.line(OUT, lambda: self._leaves(at)):
                self.account.line(BACK, lambda: self._returns(at))
            time.sleep(0.5)
        self.account.line(FAILED, lambda: _failed(load, at))

    def kill_with_retries(self) -> None:
        def look() -> str:
            self.stage.mesh.service_entry("--retries")
            self.client.wait(self._has_retries, 10, "the VirtualService in its Envoy")
            with self._load() as load:
                time.sleep(0.5)
                at = kill_main(self.webs[0], "web.service")
                out = self._leaves(at)
                self._returns(at)
                time.sleep(0.5)
            if load.failed:
                raise Unseen(f"{_failed(load, at)}: {load.failed[0].body}")
            return f"{_failed(load, at)} (out after {out})"

        self.account.line(RETRIED, look)

    def _has_retries(self) -> bool:
        routes = self.client.curl_envoy("/config_dump?resource=dynamic_route_configs")
        return bool(re.search(r'"retry_on": *"[^"]*reset', routes))

    def _listed(self) -> bool:
        return f"{self.webs[0].address}:8080" in self.client.endpoints(CLUSTER)

    def _leaves(self, at: float) -> str:
        self.client.wait(lambda: not self._listed(), 10, "the endpoint to go")
        return f"{(time.monotonic() - at) * 1e3:.0f} ms"

    def _returns(self, at: float) -> str:
        self.client.wait(self._listed, 20, "the endpoint to come back")
        return f"{time.monotonic() - at:.2f} s after the kill"

    def kill_agent(self) -> None:
        vm = self.webs[0]
        proxy = _proxy(vm)
        with self._load() as load:
            time.sleep(0.5)
            at = kill_main(vm, "vmoor.service")
            self.account.line(BEAT, lambda: self._beats(vm, time.time() - time.monotonic() + at))
            time.sleep(1.0)
        self.account.line(UNTOUCHED, lambda: _none_failed(load, at))
        self.account.line(SAME, lambda: _same(proxy, _proxy(vm)))

    def _beats(self, vm: Machine, at: float) -> str:
        api = Api(self.stage.rig, NAMESPACE)
        renewed = process.wait_until(
            lambda: (found := api.renewed(vm.name)) > at and found, 10, "a beat", period=0.02
        )
        if renewed - at > 2.0:
            raise Unseen(f"{renewed - at:.2f} s after the kill, more than 2 s")
        return f"{renewed - at:.2f} s after the kill"


def _request_ids(vm: Machine, cluster: str) -> set[str]:
    lines = vm.journal("vmoor-proxy.service").splitlines()
    return set(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
                          "\n".join(line for line in lines if cluster in line)))  # fmt: skip


def _failed(load: Load, at: float) -> str:
    answers = load.since(at)
    return f"{sum(not a.ok for a in answers)} of {len(answers)}"


def _none_failed(load: Load, at: float) -> str:
    if load.failed:
        raise Unseen(f"{_failed(load, at)}: {load.failed[0].body}")
    return _failed(load, at)


def _proxy(vm: Machine) -> tuple[str, int]:
    """The unit's main process and Envoy, by pid."""
    info = json.loads(vm.curl_envoy("/server_info"))
    return vm.unit_property("vmoor-proxy.service", "MainPID"), int(info["uptime_all_epochs"][:-1])


def _same(before: tuple[str, int], after: tuple[str, int]) -> str:
    if before[0] != after[0] or after[1] < before[1]:
        raise Unseen(f"pid {before[0]} became {after[0]}")
    return f"pid {after[0]}, Envoy up for {after[1]} s"
