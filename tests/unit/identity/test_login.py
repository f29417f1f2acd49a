"""Logging in, and what is told when that does not work."""

from __future__ import annotations

from vmoor import errors

from tests.unit.identity.world import SECRET_ID, World


def test_all_well() -> None:
    """One pass logs in, reads the facts, and holds both tokens, each of its own account."""
    world = World()
    world.turn()
    assert world.words == "logged in by approle shop-web"
    assert world.held.api.source == "kubernetes/creds/web-vmoor"
    assert world.held.istio.source == "kubernetes/creds/web"
    assert world.held.facts.istio.san == "istiod.rig"
    assert world.state.get().policies == ("web",)
    assert world.state.get().api_expires == world.held.api.expires


def test_no_secret_id_yet() -> None:
    """Without a SecretID it waits, and a file that comes later is taken without a restart."""
    world = World()
    del world.files.content[SECRET_ID]
    assert world.turn() <= 2
    assert world.loop.outcome.get().state == "wait"
    assert world.words == f"waiting for {SECRET_ID}"
    assert world.vault.calls == []
    world.put_secret_id(world.vault.new_secret_id("shop-web"))
    world.turn()
    assert world.held


def test_unreadable_secret_id() -> None:
    """The remedy for an unreadable SecretID is the command."""
    world = World()
    world.files.unreadable.add(SECRET_ID)
    world.turn()
    assert world.loop.outcome.get().remedy == (
        f"chown root:vmoor {SECRET_ID} && chmod 0640 {SECRET_ID}"
    )


def test_a_file_with_more_than_a_secret_id() -> None:
    """What can't be a SecretID is never sent, nor quoted."""
    world = World()
    world.put_secret_id("SECRET_ID: canary")
    world.turn()
    assert "more than one word" in world.words
    assert "canary" not in world.words
    assert world.vault.calls == []


def test_a_bad_secret_id_does_not_lock_the_fleet_out() -> None:
    """A SecretID that Vault refused is sent again so seldom that the role is never locked."""
    world = World()
    world.put_secret_id("stale")
    for _ in range(1200):
        world.turn()
        world.clock.advance(3)
        assert world.vault.roles["shop-web"].refused < 5
    assert "invalid role or secret ID" in world.words
    world.put_secret_id(world.vault.new_secret_id("shop-web"))
    world.turn()
    assert world.held


def test_a_role_that_is_made_later() -> None:
    """A role that is missing at first is found within a minute after it was made."""
    world = World()
    role = world.vault.roles.pop("shop-web")
    world.turn()
    world.vault.roles["shop-web"] = role
    for _ in range(20):
        world.turn()
        world.clock.advance(3)
    assert world.held


def test_sealed() -> None:
    """A sealed Vault is named, one call per pass is made, and it moors when it is unsealed."""
    world = World()
    world.vault.sealed = True
    world.turn()
    assert "sealed" in world.words
    assert world.vault.calls == ["login"]
    world.vault.sealed = False
    world.turn()
    assert world.held


def test_missing_policy() -> None:
    """The missing right is named; a policy written later counts without a new login."""
    world = World()
    world.vault.policies["web"] = {"secret/"}
    world.turn()
    assert world.words == ("403 on update kubernetes/creds/web-vmoor: no policy allows it")
    assert world.credentials.get() is None
    world.vault.policies["web"].add("kubernetes/creds/")
    world.turn()
    assert world.held
    assert "login" not in world.vault.calls


def test_policy_given_to_the_role() -> None:
    """A policy that the role gets later reaches a token only by a new login: that is made."""
    world = World()
    world.vault.roles["shop-web"].policies = ("default",)
    world.turn()
    assert "403 on read secret/vmoor/mesh-a" in world.words
    world.vault.roles["shop-web"].policies = ("default", "web")
    for _ in range(25):
        world.turn()
        world.clock.advance(3)
    assert world.held


def test_vault_token_revoked() -> None:
    """A Vault token that Vault knows no more is replaced in the same pass."""
    world = World()
    world.turn()
    world.vault.revoke_tokens()
    world.clock.advance(301)
    world.turn()
    assert world.loop.outcome.get().state == "ok"
    assert "login" in world.vault.calls


def test_a_token_of_somebody_else() -> None:
    """A minted token that names another account is not used, and the role is named."""
    world = World()
    world.vault.kubernetes["web-vmoor"].service_account = "web"
    world.turn()
    assert "not for 'system:serviceaccount:shop:web-vmoor'" in world.words
    assert world.credentials.get() is None


def test_secrets_stay_secret() -> None:
    """No word, remedy or repr of what identity tells holds a secret."""
    world = World()
    world.turn()
    shown = repr((world.loop.outcome.get(), world.state.get(), world.held, world.identity._held))
    secrets = [world.held.api.value.reveal(), "hvs.", "secret-id-1"]
    assert [s for s in secrets if s in shown] == []


def test_refused_by_vault_for_other_reasons() -> None:
    """Any other failure is told as Vault told it, and nothing is published."""
    world = World()
    world.vault.broken = errors.Unavailable("cannot reach https://vault: connection refused")
    world.turn()
    assert world.words == "cannot reach https://vault: connection refused"
    assert world.credentials.get() is None
