"""Vault's bad days: told with the step and the remedy, survived, over by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import Fleet


@pytest.fixture
def unsealed(fleet: Fleet) -> Iterator[None]:
    yield
    fleet.rig.vault.unseal()


def moors_once(
    fleet: Fleet, vm: Machine, mended: Callable[[], object], words: str, remedy: str = ""
) -> None:
    """Start cold, see the failure told, mend it, and see the VM moored by the same process."""
    harness.cold_start(vm, fleet.config(), fleet.secret_id())
    with harness.unharmed(vm):
        harness.told(vm, "identity", words, remedy=remedy)
        assert fleet.entry(vm) is None
        mended()
        harness.wait_moored(vm, 90)


def test_unreachable(fleet: Fleet, cold: Machine) -> None:
    """Nobody listens at Vault's address: told with the address."""
    secret_id = fleet.secret_id()
    fleet.vault.refuse()
    harness.cold_start(cold, fleet.config(), secret_id)
    with harness.unharmed(cold):
        harness.told(cold, "identity", f"{fleet.vault.url}.*refused")
        fleet.vault.clear()
        harness.wait_moored(cold, 90)


def test_sealed(fleet: Fleet, cold: Machine, unsealed: None) -> None:
    """A sealed Vault is told as such; once unsealed the VM moors."""
    secret_id = fleet.secret_id()
    fleet.rig.vault.seal()
    harness.cold_start(cold, fleet.config(), secret_id)
    with harness.unharmed(cold):
        harness.told(cold, "identity", "is sealed", remedy="unseal")
        fleet.rig.vault.unseal()
        harness.wait_moored(cold, 90)


@pytest.mark.parametrize(("code", "words"), [(500, "500"), (429, "overloaded")])
def test_errors(fleet: Fleet, cold: Machine, code: int, words: str) -> None:
    """Vault answers every request with an error: told, and tried again."""
    fleet.vault.status(code, {"Retry-After": "2"}, '{"errors": ["not now"]}')
    moors_once(fleet, cold, fleet.vault.clear, words)


def test_dripping(fleet: Fleet, cold: Machine) -> None:
    """An answer that comes a byte at a time ends at the deadline of the whole operation."""
    fleet.vault.drip(0.5)
    moors_once(fleet, cold, fleet.vault.clear, f"{fleet.vault.url}.*no complete answer within 10")


def test_wrong_role(fleet: Fleet, cold: Machine) -> None:
    """A role that Vault does not know is told with its name; a corrected one needs a reload."""
    right = fleet.config()
    wrong = fleet.config()
    wrong["vault"]["auth"]["role_id"] = "nobody"
    harness.cold_start(cold, wrong, fleet.secret_id())
    with harness.unharmed(cold):
        harness.told(cold, "identity", "approle nobody: 400", remedy="vault.auth.role_id")
        harness.configure(cold, right)
        cold.run("systemctl", "reload", "vmoor")
        harness.wait_moored(cold)


def test_policy_missing(fleet: Fleet, cold: Machine) -> None:
    """The remedy is the command that writes the policy; the VM moors when it is written."""
    fleet.bao("policy", "delete", f"vmoor-{fleet.account}")
    moors_once(
        fleet, cold, fleet.policy, "403 on .*no policy allows it", "vmoor admin vault-policy"
    )


def test_mesh_facts_missing(fleet: Fleet, cold: Machine) -> None:
    """A KV secret that is not there is told with its path and `vmoor admin publish`."""
    fleet.bao("kv", "metadata", "delete", fleet.mesh)
    moors_once(
        fleet, cold, fleet.publish, f"{fleet.mesh}: there is no such", "vmoor admin publish"
    )


def test_mesh_facts_malformed(fleet: Fleet, cold: Machine) -> None:
    """Facts that are none are told with the secret's path and the key that is wrong."""
    facts = fleet.facts()
    facts["istio"]["discovery"] = "not-a-list"
    fleet.write_facts(facts)
    moors_once(fleet, cold, fleet.publish, f"{fleet.mesh}.*istio.discovery", "publish")


def test_renewal_and_an_outage_longer_than_the_token(
    fleet: Fleet, client: Machine, cold: Machine
) -> None:
    """The Vault token is renewed while Vault is there. When it expires in an outage, the VM stays
    in the mesh, and logs in anew afterwards."""
    role = f"auth/approle/role/{fleet.role_id}"
    fleet.bao("write", role, "token_ttl=6s", "token_max_ttl=24h")
    try:
        harness.cold_start(cold, fleet.config(), fleet.secret_id())
        harness.wait_moored(cold)
        client.wait(lambda: fleet.in_mesh(client, cold), 20, "the endpoint")

        def count(path: str) -> int:
            return sum(path in seen.request for seen in fleet.vault.seen)

        with harness.kept(fleet, client, cold):
            renewed, logins = count("auth/token/renew-self"), count("approle/login")
            cold.wait(lambda: count("auth/token/renew-self") >= renewed + 2, 60, "renewals")
            assert count("approle/login") == logins
            fleet.vault.refuse()
            harness.told(cold, "identity", f"{fleet.vault.url}.*refused")
            assert harness.document(cold)["state"] == "at-risk"

            def expired() -> bool:
                found = harness.document(cold)
                return bool(found["identity"]["vault_expires"] < found["written"])

            cold.wait(expired, 60, "the end of the token")
            harness.beats(fleet, cold)
            assert fleet.get(client) == (200, cold.name)
            fleet.vault.clear()
            harness.wait_moored(cold, 90)
            assert count("approle/login") > logins
    finally:
        fleet.bao("write", role, "token_ttl=1h", "token_max_ttl=24h")
