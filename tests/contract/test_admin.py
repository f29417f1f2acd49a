"""What the owner's commands set up, on the real API server and the real OpenBao."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import pytest
from vmoor import errors
from vmoor.adapters.clock import SystemClock
from vmoor.adapters.vault import HvacVault
from vmoor.config import facts
from vmoor.config.settings import AppRole, VaultSettings
from vmoor.model.credential import claims
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret

from tests import mesh_setup
from tests.mesh_setup import MESH, Mooring
from tests.rig import inside
from tests.rig.errors import RigError
from tests.rig.rig import Rig

ENTRIES = "/apis/networking.istio.io/v1/namespaces/{}/workloadentries"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
APPLY = "?fieldManager=vmoor&force=true"
MARK = {
    "app.kubernetes.io/managed-by": "vmoor",
    "vmoor.io/vm": "vm-1",
    "vmoor.io/service-account": "web",
    "vmoor.io/service": "web",
}
# One right too many, in a namespace that is not the account's own.
ELSEWHERE = """
kubectl create namespace elsewhere
kubectl create role entries -n elsewhere --verb=create,patch,get \
  --resource=workloadentries.networking.istio.io
kubectl create rolebinding entries -n elsewhere --role=entries --serviceaccount=shop:web-vmoor
kubectl create clusterrole controllers --verb='*' --resource=workloadentries.networking.istio.io
kubectl create clusterrolebinding controllers --clusterrole=controllers \
  --serviceaccount=istio-system:controllers
kubectl create serviceaccount controllers -n istio-system
vmoor admin manifests --namespace shop --service-account db | kubectl apply -f -
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig() as rig:
        yield rig


@pytest.fixture(scope="module")
def mooring(rig: Rig) -> Mooring:
    mooring = mesh_setup.moor_ready(rig)
    mooring.sh(ELSEWHERE)
    return mooring


@dataclass(frozen=True)
class Caller:
    rig: Rig
    token: str

    def __call__(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, str]:
        answer = self.rig.http(
            method,
            f"{self.rig.kube.url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
        )
        return answer.status_code, str(answer.json().get("message", ""))

    def apply(
        self, made: dict[str, Any], *, status: bool = False, namespace: str = "shop"
    ) -> tuple[int, str]:
        path = f"{ENTRIES.format(namespace)}/{made['metadata']['name']}"
        way = path + ("/status" if status else "") + APPLY
        return self("PATCH", way, made, "application/apply-patch+yaml")


def caller(rig: Rig, account: str, namespace: str = "shop") -> Caller:
    return Caller(rig, rig.kubectl("create", "token", "-n", namespace, account).strip())


@pytest.fixture(scope="module")
def agent(rig: Rig, mooring: Mooring) -> Caller:
    return caller(rig, "web-vmoor")


@pytest.fixture
def admin(rig: Rig, mooring: Mooring) -> Iterator[Caller]:
    """Its entries and leases are gone after the test."""
    yield Caller(rig, rig.kube.token)
    rig.kubectl("delete", "workloadentries,leases", "-n", "shop", "--all")


def entry(
    name: str = "web.vm-1",
    labels: Optional[dict[str, str]] = None,
    account: Optional[str] = "web",
) -> dict[str, Any]:
    spec = {"address": "198.18.0.11", **({"serviceAccount": account} if account else {})}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": name, "labels": MARK if labels is None else labels},
        "spec": spec,
    }


def health(name: str = "web.vm-1") -> dict[str, Any]:
    condition = {"type": "Healthy", "status": "False"}
    body = entry(name)
    del body["spec"], body["metadata"]["labels"]
    return {**body, "status": {"conditions": [condition]}}


def lease(name: str = "vmoor-vm-1", labels: Optional[dict[str, str]] = None) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "labels": MARK if labels is None else labels},
        "spec": {"holderIdentity": "a/b"},
    }


def version(rig: Rig, what: str) -> str:
    return rig.kubectl("get", "-n", "shop", what, "-o", "jsonpath={.metadata.resourceVersion}")


def denied(answer: tuple[int, str]) -> bool:
    """By our policy, not by the API server's own validation."""
    return answer[0] == 422 and "'vmoor-own-entries'" in answer[1]


def test_an_agent_lives(rig: Rig, agent: Caller, admin: Caller) -> None:
    """All that an agent does from its first beat to its leave is allowed."""
    path, one = LEASES.format("shop"), f"{LEASES.format('shop')}/vmoor-vm-1"
    assert agent("POST", path, lease()) == (201, "")
    beat = lease()
    beat["metadata"]["resourceVersion"] = version(rig, "lease/vmoor-vm-1")
    assert agent("PUT", one, beat) == (200, "")
    assert agent.apply(entry()) == (201, "")
    assert agent.apply(health(), status=True) == (200, "")
    assert agent.apply(entry()) == (200, "")
    assert agent("GET", f"{ENTRIES.format('shop')}?labelSelector=vmoor.io/vm=vm-1")[0] == 200
    assert agent("DELETE", f"{ENTRIES.format('shop')}/web.vm-1")[0] == 200
    assert agent("DELETE", one)[0] == 200


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (entry(labels={}), "owner mark"),
        (entry(labels={**MARK, "app.kubernetes.io/managed-by": "helm"}), "owner mark"),
        (entry(labels={**MARK, "vmoor.io/service-account": "db"}), "owner mark"),
        (entry(account="db"), "spec.serviceAccount must be web"),
        (entry(account=None), "spec.serviceAccount must be web"),
        (entry("web.vm-2"), "an entry is named"),
        (entry("api.vm-1"), "an entry is named"),
        (entry("web-vm-1"), "an entry is named"),
        (entry("a.b.vm-1", {**MARK, "vmoor.io/service": "a.b"}), "an entry is named"),
        (entry("web.b.c", {**MARK, "vmoor.io/vm": "b.c"}), "an entry is named"),
    ],
)
def test_no_entry_but_its_own_is_created(
    agent: Caller, admin: Caller, made: dict[str, Any], told: str
) -> None:
    """Denied with the reason, by apply and by POST."""
    for answer in (agent.apply(made), agent("POST", ENTRIES.format("shop"), made)):
        assert denied(answer)
        assert "web-vmoor: " in answer[1]
        assert told in answer[1]


@pytest.mark.parametrize(
    ("name", "labels", "account"),
    [
        ("web.vm-9", {**MARK, "vmoor.io/vm": "vm-9", "vmoor.io/service-account": "db"}, "db"),
        ("web.vm-9", {}, "web"),
        ("web.vm-9", {**MARK, "app.kubernetes.io/managed-by": "helm"}, "web"),
    ],
    ids=["another account's", "nobody's", "somebody's"],
)
def test_other_entries_are_out_of_reach(
    agent: Caller, admin: Caller, name: str, labels: dict[str, str], account: str
) -> None:
    """Neither changed, nor claimed, nor judged, nor deleted."""
    assert admin.apply(entry(name, labels, account))[0] == 201
    claimed = {**MARK, "vmoor.io/vm": "vm-9"}
    path = f"{ENTRIES.format('shop')}/{name}"
    assert denied(agent.apply(entry(name, claimed)))
    assert denied(agent.apply(health(name), status=True))
    assert denied(agent("DELETE", path))
    assert admin("GET", path)[0] == 200


@pytest.mark.parametrize(
    "labels", [{"vmoor.io/vm": "vm-2"}, {"vmoor.io/service": "db"}, {"vmoor.io/vm": None}]
)
def test_an_entry_is_not_relabelled(
    agent: Caller, admin: Caller, labels: dict[str, Optional[str]]
) -> None:
    """Its name and its mark stay what they were."""
    assert agent.apply(entry())[0] == 201
    path, patch = f"{ENTRIES.format('shop')}/web.vm-1", {"metadata": {"labels": labels}}
    assert denied(agent("PATCH", path, patch, "application/merge-patch+json"))


def test_an_edited_entry_of_its_own_is_repaired(agent: Caller, admin: Caller) -> None:
    """Whatever a person did to its spec: it can be marked unhealthy, mended and deleted."""
    assert agent.apply(entry())[0] == 201
    path = f"{ENTRIES.format('shop')}/web.vm-1"
    edit = {"spec": {"serviceAccount": "db"}}
    assert admin("PATCH", path, edit, "application/merge-patch+json")[0] == 200
    assert agent.apply(health(), status=True)[0] == 200
    assert agent.apply(entry())[0] == 200
    assert agent("DELETE", path)[0] == 200


@pytest.mark.parametrize(
    "made",
    [
        lease("vmoor-vm-2"),
        lease("vm-1"),
        lease(labels={}),
        lease(labels={**MARK, "vmoor.io/service-account": "db"}),
    ],
)
def test_no_lease_but_its_own_is_created(
    agent: Caller, admin: Caller, made: dict[str, Any]
) -> None:
    """Leases are locks: a foreign name would keep another VM out."""
    assert denied(agent("POST", LEASES.format("shop"), made))


def test_other_leases_are_out_of_reach(rig: Rig, agent: Caller, admin: Caller) -> None:
    """Another account's lock can't be taken or deleted."""
    foreign = lease(
        "vmoor-vm-9", {**MARK, "vmoor.io/vm": "vm-9", "vmoor.io/service-account": "db"}
    )
    assert admin("POST", LEASES.format("shop"), foreign)[0] == 201
    one = f"{LEASES.format('shop')}/vmoor-vm-9"
    taken = lease("vmoor-vm-9", {**MARK, "vmoor.io/vm": "vm-9"})
    taken["metadata"]["resourceVersion"] = version(rig, "lease/vmoor-vm-9")
    assert denied(agent("PUT", one, taken))
    assert denied(agent("DELETE", one))


def test_only_agents_are_judged(rig: Rig, admin: Caller) -> None:
    """People and controllers write entries as if vmoor were not there."""
    assert admin.apply(entry("any-name", {}, "db"))[0] == 201
    controllers = caller(rig, "controllers", "istio-system")
    assert controllers.apply(entry("any-name", {}, "web"))[0] == 200
    assert controllers("DELETE", f"{ENTRIES.format('shop')}/any-name")[0] == 200


def test_another_namespace_is_closed(agent: Caller) -> None:
    """Even where somebody has given it the right."""
    answer = agent.apply(entry(), namespace="elsewhere")
    assert denied(answer)
    assert "in its own namespace only" in answer[1]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/shop/secrets",
        "/api/v1/namespaces/shop/pods",
        "/apis/networking.istio.io/v1/namespaces/default/workloadentries",
        "/apis/networking.istio.io/v1/namespaces/shop/serviceentries",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases",
    ],
)
def test_nothing_else_is_readable(agent: Caller, path: str) -> None:
    """Leases and entries are, of its own namespace: whose an address is stands there."""
    assert agent("GET", path)[0] == 403


def test_mesh_identity_has_no_rights(rig: Rig, mooring: Mooring) -> None:
    """Its token is for istiod."""
    assert caller(rig, "web")("GET", ENTRIES.format("shop"))[0] == 403


def test_minter_mints_for_these_accounts_only(rig: Rig, mooring: Mooring) -> None:
    """Not for `default`, nor in another namespace."""
    minter = caller(rig, "vmoor-vault", "vmoor-system")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}

    def mint(namespace: str, account: str) -> int:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return minter("POST", path, request)[0]

    assert [mint("shop", "web"), mint("shop", "web-vmoor")] == [201, 201]
    rig.kubectl("create", "serviceaccount", "-n", "shop", "other")
    assert [mint("shop", "other"), mint("istio-system", "controllers")] == [403, 403]


class AgentVault:
    """The agent's own adapter, logged in as a VM is, by an unwrapped SecretID."""

    def __init__(self, mooring: Mooring) -> None:
        self._netns = mooring.rig.network.netns_path
        settings = VaultSettings(
            (mooring.rig.vault.url,), AppRole(mooring.role_id), str(mooring.rig.vault.ca)
        )
        self.vault = HvacVault(settings, SystemClock())
        wrapped = Secret(mooring.meta_data()["vmoor_wrap"])
        self.wrapped_at = self.call("wrapping_path", wrapped)
        secret_id = self.call("unwrap_secret_id", wrapped)
        self.token: VaultToken = self.call("login", AppRole(mooring.role_id), secret_id)

    def call(self, method: str, *args: Any) -> Any:
        return inside.call(self._netns, lambda: getattr(self.vault, method)(*args))


@pytest.fixture(scope="module")
def vault(mooring: Mooring) -> Iterator[AgentVault]:
    logged_in = AgentVault(mooring)
    yield logged_in
    logged_in.vault.close()


def test_a_vm_gets_its_credentials(vault: AgentVault, mooring: Mooring) -> None:
    """With user-data's wrapping path, through the policy, as the agent asks."""
    assert vault.wrapped_at == "auth/approle/role/shop-web/secret-id"
    assert vault.wrapped_at in mooring.user_data("--package=vmoor")
    istio = vault.call("mint", vault.token, "kubernetes", "web", "shop", "istio-ca")
    api = vault.call("mint", vault.token, "kubernetes", "web-vmoor", "shop", "")
    inside_istio, inside_api = claims(istio.value), claims(api.value)
    assert (inside_istio["aud"], inside_istio["sub"]) == (
        ["istio-ca"],
        "system:serviceaccount:shop:web",
    )
    assert inside_api["sub"] == "system:serviceaccount:shop:web-vmoor"
    assert "istio-ca" not in inside_api["aud"]
    assert istio.expires - istio.issued == 3600
    assert vault.call("renew", vault.token).renewable


def test_a_vm_reads_the_facts(vault: AgentVault, rig: Rig) -> None:
    """They are complete and valid, and say what the rig is."""
    got = facts.facts_from(vault.call("read_kv", vault.token, "secret", "vmoor/mesh-a"), MESH)
    assert got.kubernetes.server == (rig.kube.url,)
    assert got.istio.discovery == (rig.istiod.discovery,)
    assert (got.istio.san, got.istio.root_ca) == (rig.istiod.san, rig.istiod.root_ca)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("kubernetes/creds/web", {"kubernetes_namespace": "shop", "audiences": "kubernetes"}),
        ("kubernetes/creds/web", {"kubernetes_namespace": "shop"}),
        ("kubernetes/creds/web", {"kubernetes_namespace": "elsewhere", "audiences": "istio-ca"}),
        (
            "kubernetes/creds/web",
            {"kubernetes_namespace": "shop", "audiences": "istio-ca", "ttl": "24h"},
        ),
        ("kubernetes/creds/web-vmoor", {"kubernetes_namespace": "shop", "audiences": "istio-ca"}),
        ("kubernetes/creds/web-vmoor", {"kubernetes_namespace": "elsewhere"}),
        ("kubernetes/roles/web", {"service_account_name": "db"}),
        ("secret/data/vmoor/mesh-a", {"data": {"version": 1}}),
    ],
)
def test_a_stolen_vault_token_gets_nothing_else(
    vault: AgentVault, rig: Rig, path: str, body: dict[str, Any]
) -> None:
    """Other audiences, namespaces, lifetimes and writes are refused by the policy."""
    answer = rig.http(
        "POST",
        f"{rig.vault.url}/v1/{path}",
        json=body,
        headers={"X-Vault-Token": vault.token.value.reveal()},
    )
    assert (answer.status_code, "permission denied" in answer.text) == (403, True)


def test_setup_can_be_run_again(mooring: Mooring) -> None:
    """Everything is there already: the same commands change nothing and do not fail."""
    mooring.run("sh", "-c", mesh_setup.documented())
    mooring.publish()
    assert "says what the cluster says" in mooring.publish("--check")


@pytest.mark.parametrize("broken", ["VMOOR=false", "KUBECONFIG=/nowhere"])
def test_a_setup_that_fails_early_has_written_nothing(mooring: Mooring, broken: str) -> None:
    """No role without its policy, whichever program is missing or fails."""
    account = f"{broken[:2].lower()}-db"
    with pytest.raises(RigError):
        mooring.run("env", broken, f"ACCOUNT={account}", "sh", "-c", mesh_setup.documented())
    for path in (f"kubernetes/roles/{account}", f"auth/approle/role/shop-{account}"):
        with pytest.raises(RigError, match="No value found"):
            mooring.run("bao", "read", path)
    assert f"vmoor-{account}" not in mooring.run("bao", "policy", "list")


def test_check_tells_drift(mooring: Mooring) -> None:
    """Exit code 1 and a line for each fact."""
    mooring.publish("--san=istiod.wrong")
    with pytest.raises(RigError, match=r"istio.san: published istiod.wrong, should be istiod"):
        mooring.publish("--check")
    mooring.publish()


def test_kv_version_1_works(mooring: Mooring) -> None:
    """Written and compared without data/ in the path."""
    mooring.run("bao", "secrets", "enable", "-path=old", "-version=1", "kv")
    argv = ["vmoor", "admin", "publish", "--mesh", "old/mesh", "--discovery=198.18.0.1:15012"]
    mooring.run(*argv)
    mooring.run(*argv, "--check")
    stored = json.loads(mooring.run("bao", "read", "-format=json", "old/mesh"))["data"]
    assert stored["istio"]["discovery"] == ["198.18.0.1:15012"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--mesh nowhere/mesh-a --discovery a:1", "Fix:  vault secrets enable -path=nowhere"),
        ("--mesh secret/none --discovery a:1 --check", "there is no such secret"),
        ("--mesh secret/x", "Fix:  --discovery HOST:PORT"),
        ("--mesh secret/x --discovery a:1 --revision none", "ConfigMap istio-system/istio-none"),
        ("--mesh secret/x --discovery a", "Fix:  say it by --server, --discovery"),
        ("--mesh secret/x --discovery a:1 --context none", "context"),
    ],
)
def test_publish_says_what_is_missing(mooring: Mooring, options: str, told: str) -> None:
    """One line and a remedy, no traceback."""
    with pytest.raises(RigError) as caught:
        mooring.run("vmoor", "admin", "publish", *options.split())
    assert told in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_service_entry_and_retries_are_accepted(mooring: Mooring, rig: Rig) -> None:
    """By Istio's CRDs; applied twice, as with and without --retries, nothing is lost."""
    mooring.service_entry("--retries")
    mooring.service_entry()
    got = rig.kubectl("get", "serviceentry,virtualservice", "-n", "shop", "-o", "name").split()
    assert [name.partition(".")[0] for name in got] == ["serviceentry", "virtualservice"]


def test_a_refused_vault_token_is_told(mooring: Mooring) -> None:
    """And not quoted."""
    with pytest.raises(RigError, match="cannot") as caught:
        mooring.sh(f"VAULT_TOKEN=s.canary vmoor admin publish --mesh {MESH} --discovery a:1")
    assert "s.canary" not in str(caught.value).replace("VAULT_TOKEN=s.canary", "")


def test_agents_cannot_publish(vault: AgentVault) -> None:
    """The adapter's write is for people: the VMs' policy does not allow it."""
    with pytest.raises(errors.Forbidden):
        vault.call("write_kv", vault.token, "secret", "vmoor/mesh-a", {"version": 1})
