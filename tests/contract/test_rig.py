"""The rig itself: its parts are real and answer, and its fault proxy does what it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.rig.errors import RigError
from tests.rig.faults import FaultProxy
from tests.rig.network import ADDRESS
from tests.rig.process import run, wait_until
from tests.rig.rig import Rig


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


@pytest.fixture
def proxy(rig: Rig) -> Iterator[FaultProxy]:
    with rig.fault_proxy(rig.kube.url) as proxy:
        yield proxy


def get(rig: Rig, url: str, **more: Any) -> requests.Response:
    return rig.http("GET", url, headers={"Authorization": f"Bearer {rig.kube.token}"}, **more)


def test_kubectl_is_an_administrator(rig: Rig) -> None:
    """The API server answers kubectl, and admin may do everything."""
    assert "namespace/istio-system" in rig.kubectl("get", "namespaces", "-o", "name")
    assert rig.kubectl("auth", "can-i", "*", "*", "--all-namespaces").strip() == "yes"


def test_service_account_tokens_are_minted(rig: Rig) -> None:
    """A ServiceAccount created by hand gets a token, of any audience."""
    rig.kubectl("create", "serviceaccount", "minted")
    token = rig.kubectl("create", "token", "minted", "--audience=istio-ca")
    assert token.count(".") == 2


def test_vault_is_unsealed_and_seals(rig: Rig) -> None:
    """seal() and unseal() do what they say, and nothing is forgotten between them."""
    rig.bao("secrets", "enable", "-path=kept", "kv")
    assert json.loads(rig.bao("status", "-format=json"))["sealed"] is False
    rig.vault.seal()
    assert rig.http("GET", f"{rig.vault.url}/v1/sys/health").status_code == 503
    rig.vault.unseal()
    assert "kept/" in rig.bao("secrets", "list")
    assert '"path":"sys/mounts/kept"' in rig.vault.audit.read_text()


def test_istiod_is_ready_and_known_by_the_name_that_vms_use(rig: Rig) -> None:
    """Its certificate is good for the published SAN under the published root."""
    root = rig.workdir / "istio-root.pem"
    root.write_text(rig.istiod.root_ca)
    said = run(
        ["openssl", "s_client", "-connect", rig.istiod.discovery, "-CAfile", str(root),
         "-verify_hostname", rig.istiod.san, "-verify_return_error"],
        netns=rig.network.netns_name, input="",
    )  # fmt: skip
    assert "Verify return code: 0 (ok)" in said


def test_mesh_is_strict(rig: Rig) -> None:
    """Plaintext between VMs is refused by the mesh's own policy."""
    where = ["peerauthentication", "-n", "istio-system", "default"]
    assert rig.kubectl("get", *where, "-o", "jsonpath={.spec.mtls.mode}") == "STRICT"


def test_istiod_counts(rig: Rig) -> None:
    """A change of configuration is counted by istiod."""
    before = rig.istiod.pushes()
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "counted", "namespace": "default"},
        "spec": {"hosts": ["counted.mesh"], "ports": [{"number": 80, "name": "http"}]},
    }
    rig.kubectl("create", "-f", "-", input=json.dumps(entry))
    wait_until(lambda: rig.istiod.pushes() != before, 10, "a counter to move")


def test_nothing_leads_out(rig: Rig) -> None:
    """Neither from the rig's namespace nor through it from a VM's."""
    with pytest.raises(RigError, match="unreachable"):
        run(["ip", "route", "get", "192.0.2.1"], netns=rig.network.netns_name)
    port = rig.network.attach("lost", "198.18.9.9")
    with pytest.raises(RigError):
        run(["curl", "--max-time", "0.5", "http://192.0.2.1"], netns=port.netns_name)
    assert run(["curl", "-s", f"http://{ADDRESS}:8080/ready"], netns=port.netns_name) == ""
    port.link_down()
    with pytest.raises(RigError):
        run(["curl", "--max-time", "0.5", f"http://{ADDRESS}:8080/ready"], netns=port.netns_name)
    port.close()


def test_proxy_passes_on(rig: Rig, proxy: FaultProxy) -> None:
    """Without a fault, the real server's answer comes through."""
    got = get(rig, f"{proxy.url}/api/v1/namespaces/istio-system").json()
    assert got["metadata"]["uid"]
    assert [(seen.request, seen.fate) for seen in proxy.seen] == [
        ("GET /api/v1/namespaces/istio-system", "passed")
    ]


def test_proxy_passes_on_a_watch_as_it_happens(rig: Rig, proxy: FaultProxy) -> None:
    """An event is not held back until the watch ends."""
    url = f"{proxy.url}/api/v1/namespaces/default/configmaps"
    version = get(rig, url).json()["metadata"]["resourceVersion"]
    query = f"?watch=1&timeoutSeconds=20&resourceVersion={version}"
    with get(rig, url + query, stream=True) as watch:
        threading.Timer(0.5, rig.kubectl, ["create", "configmap", "seen"]).start()
        started = time.monotonic()
        names = (json.loads(line)["object"]["metadata"]["name"] for line in watch.iter_lines())
        assert any(name == "seen" for name in names)
        assert time.monotonic() - started < 10


def test_refuse(rig: Rig, proxy: FaultProxy) -> None:
    """Nobody listens until clear()."""
    proxy.refuse()
    with pytest.raises(requests.ConnectionError, match="refused"):
        get(rig, proxy.url)
    proxy.clear()
    assert get(rig, f"{proxy.url}/readyz").ok


def test_status(rig: Rig, proxy: FaultProxy) -> None:
    """Only the requests that match get the made-up answer."""
    proxy.status(429, {"Retry-After": "3"}, "slow down", match="^GET /api/v1/namespaces$")
    got = get(rig, f"{proxy.url}/api/v1/namespaces")
    assert (got.status_code, got.headers["Retry-After"], got.text) == (429, "3", "slow down")
    assert get(rig, f"{proxy.url}/readyz").ok


def test_drip(rig: Rig, proxy: FaultProxy) -> None:
    """Each byte comes within a read timeout, the whole answer doesn't."""
    proxy.drip(0.003)
    started = time.monotonic()
    assert get(rig, f"{proxy.url}/readyz", timeout=1).text == "ok"
    assert time.monotonic() - started > 1


def test_hang(rig: Rig, proxy: FaultProxy) -> None:
    """The request is taken and never answered."""
    proxy.hang()
    with pytest.raises(requests.ReadTimeout):
        get(rig, f"{proxy.url}/readyz", timeout=0.5)


def test_late(rig: Rig, proxy: FaultProxy) -> None:
    """The real answer, later."""
    proxy.late(1.0)
    started = time.monotonic()
    assert get(rig, f"{proxy.url}/readyz", timeout=5).text == "ok"
    assert 1 <= time.monotonic() - started < 3


def test_swallow(rig: Rig, proxy: FaultProxy) -> None:
    """What was asked is done, and nobody is told."""
    proxy.swallow("DELETE")
    rig.kubectl("create", "configmap", "swallowed")
    token = {"Authorization": f"Bearer {rig.kube.token}"}
    url = f"{proxy.url}/api/v1/namespaces/default/configmaps/swallowed"
    with pytest.raises(requests.ReadTimeout):
        rig.http("DELETE", url, headers=token, timeout=1)
    assert get(rig, url).status_code == 404


def test_connections_are_kept(rig: Rig, proxy: FaultProxy) -> None:
    """kubectl's discovery and reads, many requests on few connections, work through the proxy."""
    config = rig.workdir / "proxied.kubeconfig"
    config.write_text(rig.kube.kubeconfig.read_text().replace(rig.kube.url, proxy.url))
    got = rig.kubectl("--kubeconfig", str(config), "get", "serviceaccounts", "-A", "-o", "name")
    assert "serviceaccount/" in got or len(proxy.seen) > 1
