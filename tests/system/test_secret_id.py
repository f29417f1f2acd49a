"""The SecretID: comes late, is replaced, is wrapped, is stolen, and its unwrap is interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.rig.machine import Machine
from tests.stage import kill_main
from tests.system import harness
from tests.system.fleet import SECRET_ID, Fleet

STORE = "/var/lib/vmoor/secret-id.json"
UNWRAP = "sys/wrapping/unwrap"
LOOKUP = "sys/wrapping/lookup"
LATER = "no restart needed"


def count(fleet: Fleet, path: str) -> int:
    return sum(path in seen.request for seen in fleet.vault.seen)


@contextmanager
def security_event(vm: Machine, words: str) -> Iterator[None]:
    """The journal gets exactly one line of priority crit meanwhile."""
    began = harness.now(vm)
    yield
    told = vm.run(
        "journalctl", "-q", "-o", "cat", "-u", "vmoor", "-p", "crit", f"--since=@{began:.3f}"
    ).stdout.splitlines()
    assert len(told) == 1, told
    assert words in told[0]


def look_again(vm: Machine) -> None:
    """SIGHUP makes every loop look; returns when the configuration was taken."""
    began = harness.now(vm)
    vm.run("systemctl", "reload", "vmoor")
    vm.wait(lambda: "accepted" in harness.journal_since(vm, began), 30, "the reload", period=0.1)
    harness.told(vm, "identity", ".")


def test_a_file_that_comes_later(fleet: Fleet, cold: Machine) -> None:
    """Without a SecretID the agent waits and names the file; when it comes the VM moors."""
    harness.cold_start(cold, fleet.config())
    with harness.unharmed(cold):
        harness.told(cold, "identity", f"waiting for {SECRET_ID}", state="wait")
        harness.give_secret_id(cold, fleet.secret_id())
        harness.wait_moored(cold)


def test_an_unreadable_file(fleet: Fleet, cold: Machine) -> None:
    """A file for root alone, written later, is told with the command that mends it."""
    harness.cold_start(cold, fleet.config())
    with harness.unharmed(cold):
        cold.write(SECRET_ID, fleet.secret_id(), 0o600)
        found = harness.told(cold, "identity", SECRET_ID, remedy="chown")
        cold.sh(found["remedy"])
        harness.wait_moored(cold)


def test_replaced_after_a_revocation(fleet: Fleet, client: Machine, cold: Machine) -> None:
    """A SecretID that Vault knows no more is told at the next login; the VM stays in the mesh,
    and a new SecretID in the file is all it needs."""
    role = f"auth/approle/role/{fleet.role_id}"
    fleet.bao("write", role, "token_ttl=6s", "token_max_ttl=8s")
    try:
        secret_id = fleet.secret_id()
        harness.cold_start(cold, fleet.config(), secret_id)
        harness.wait_moored(cold)
        client.wait(lambda: fleet.in_mesh(client, cold), 20, "the endpoint")
        with harness.kept(fleet, client, cold):
            fleet.bao(
                "write", f"{role}/secret-id/destroy", "-", input=f'{{"secret_id":"{secret_id}"}}'
            )
            harness.told(cold, "identity", "cannot log in", remedy=f"{SECRET_ID}.*{LATER}")
            assert harness.document(cold)["state"] == "at-risk"
            harness.give_secret_id(cold, fleet.secret_id())
            harness.wait_moored(cold, 90)
    finally:
        fleet.bao("write", role, "token_ttl=1h", "token_max_ttl=24h")


def test_a_token_that_was_unwrapped_by_someone_else(fleet: Fleet, cold: Machine) -> None:
    """It is a security event in the journal, is not tried again, and a new token is all it
    takes."""
    token = fleet.secret_id(wrap_ttl="300s")
    fleet.bao("write", UNWRAP, "-", input=json.dumps({"token": token}))
    with security_event(cold, "Cannot trust the wrapping token"):
        harness.cold_start(cold, fleet.config(wrapped=True), token)
        with harness.unharmed(cold):
            harness.told(
                cold, "identity", "cannot trust the wrapping token", remedy=f"revoke.*{LATER}"
            )
            asked = count(fleet, LOOKUP), count(fleet, UNWRAP)
            look_again(cold)
            assert (count(fleet, LOOKUP), count(fleet, UNWRAP)) == asked
            harness.give_secret_id(cold, fleet.secret_id(wrap_ttl="300s"))
            harness.wait_moored(cold)


def test_a_token_that_wraps_something_else(fleet: Fleet, cold: Machine) -> None:
    """A token made by another path is refused unused, as a security event."""
    other = "auth/approle/role/other/secret-id"
    fleet.bao("write", "auth/approle/role/other", "token_ttl=1h")
    token = fleet.bao("write", "-f", "-wrap-ttl=300s", "-field=wrapping_token", other).strip()
    asked = count(fleet, UNWRAP)
    with security_event(cold, f"made by {other}"):
        harness.cold_start(cold, fleet.config(wrapped=True), token)
        with harness.unharmed(cold):
            harness.told(cold, "identity", f"made by {other}", remedy=LATER)
            assert count(fleet, UNWRAP) == asked
            harness.give_secret_id(cold, fleet.secret_id(wrap_ttl="300s"))
            harness.wait_moored(cold)
    fleet.bao("write", UNWRAP, "-", input=json.dumps({"token": token}))  # it still could be


@pytest.mark.parametrize("answer", ["never sent", "lost"])
def test_killed_while_unwrapping(fleet: Fleet, cold: Machine, answer: str) -> None:
    """kill -9 between the request and its answer: whether or not Vault has unwrapped, the next
    agent does not send it again, says so, and a new token is all it takes."""
    unwraps = count(fleet, UNWRAP)
    if answer == "lost":
        fleet.vault.drip(1.0, match=UNWRAP)
    else:
        fleet.vault.hang(match=UNWRAP)
    harness.cold_start(cold, fleet.config(wrapped=True), fleet.secret_id(wrap_ttl="300s"))
    cold.wait(lambda: count(fleet, UNWRAP) == unwraps + 1, 30, "the unwrap")
    assert json.loads(cold.read(STORE))["state"] == "unwrapping"
    kill_main(cold, harness.AGENT)
    fleet.vault.clear()
    harness.told(cold, "identity", "interrupted", remedy=f"new wrapping token.*{LATER}")
    assert count(fleet, UNWRAP) == unwraps + 1
    with harness.unharmed(cold):
        harness.give_secret_id(cold, fleet.secret_id(wrap_ttl="300s"))
        harness.wait_moored(cold)


def test_killed_after_unwrapping(fleet: Fleet, cold: Machine) -> None:
    """kill -9 before the login with what was unwrapped: the next agent has it and moors."""
    unwraps, logins = count(fleet, UNWRAP), count(fleet, "approle/login")
    fleet.vault.hang(match="approle/login")
    harness.cold_start(cold, fleet.config(wrapped=True), fleet.secret_id(wrap_ttl="300s"))
    cold.wait(lambda: count(fleet, "approle/login") > logins, 30, "the login")
    kill_main(cold, harness.AGENT)
    fleet.vault.clear()
    harness.wait_moored(cold)
    assert count(fleet, UNWRAP) == unwraps + 1
