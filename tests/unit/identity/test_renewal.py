"""Keeping what was fetched: renewal, refusal, restarts, and a Vault that is away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from vmoor import errors
from vmoor.config.settings import AppRole, MeshSource, Settings
from vmoor.model.service import Workload

from tests.fakes.files import Killed
from tests.fakes.vault import KubernetesRole
from tests.unit.identity.world import FACTS, World

STORE = "/run/vmoor/credentials.json"
AWAY = errors.Unavailable("cannot reach https://vault: connection refused")


def run(world: World, seconds: float) -> None:
    """Let the loop live for that long, as its own answers pace it."""
    end = world.clock.now() + seconds
    while world.clock.now() < end:
        world.clock.advance(min(max(world.turn(), 1.0), 30.0))


def test_renewed_at_half_life() -> None:
    """Both tokens are minted anew at half their life, and not before."""
    world = World()
    world.turn()
    first = world.held
    run(world, 1780)
    assert world.held.api == first.api
    run(world, 60)
    assert world.held.api.generation > first.api.generation
    assert world.held.istio.generation > first.istio.generation


def test_one_login_for_days() -> None:
    """The Vault token is renewed; a login follows only when its longest life nears its end."""
    world = World()
    world.vault.roles["shop-web"].max_ttl = 4 * 3600
    logins = 0
    for _ in range(8 * 60):
        world.turn()
        logins += world.vault.calls.count("login")
        world.clock.advance(60)
        assert world.state.get().vault_expires > world.clock.wall()
    assert logins in (2, 3)


def test_no_login_while_the_old_token_ends() -> None:
    """A SecretID that is gone is told from the hour the Vault token can't be prolonged."""
    world = World()
    world.vault.roles["shop-web"].max_ttl = 2 * 3600
    world.turn()
    world.vault.roles["shop-web"].secret_ids.clear()
    run(world, 2 * 3600 - 800)
    for _ in range(20):
        world.clock.advance(max(world.turn(), 1.0))
        assert "invalid role or secret ID" in world.words
    assert world.held.api.good(world.clock.wall())


def test_vault_away_harms_nothing_while_tokens_last() -> None:
    """A Vault that is away for a while is told, and what is good stays published."""
    world = World()
    world.turn()
    first = world.held
    world.vault.broken = AWAY
    run(world, 3000)
    assert world.held == first
    assert world.loop.outcome.get().state == "fail"
    world.vault.broken = None
    run(world, 31)
    assert world.held.api.generation > first.api.generation
    assert world.loop.outcome.get().state == "ok"


def test_expired_is_not_published() -> None:
    """An API token past its end is no credential any more."""
    world = World()
    world.turn()
    world.vault.broken = AWAY
    run(world, 3700)
    assert world.credentials.get() is None


def test_an_expired_istio_token_takes_no_api_access_away() -> None:
    """The heartbeat goes on with its API token while only the other one can't be had."""
    world = World()
    world.turn()
    del world.vault.kubernetes["web"]
    run(world, 7300)
    assert world.held.istio.expires < world.clock.wall() < world.held.api.expires


def test_restart_with_vault_down() -> None:
    """A started agent has its credentials before it asks anybody."""
    world = World()
    world.turn()
    before = world.held
    world.vault.broken = AWAY
    world.vault.calls.clear()
    world.start()
    assert world.held == before
    assert world.vault.calls == []
    assert world.files.modes[STORE] == 0o600


def test_restart_before_all_was_there() -> None:
    """A Vault token that was got before the restart is used after it."""
    world = World()
    del world.vault.kubernetes["web"]
    world.vault.kv.clear()
    world.turn()
    world.start()
    world.vault.kubernetes["web"] = KubernetesRole("web")
    world.vault.kv[("secret", "vmoor/mesh-a")] = FACTS
    world.turn()
    assert world.held
    assert "login" not in world.vault.calls


def test_damaged_store() -> None:
    """A store that can't be read is the same as none."""
    world = World()
    world.turn()
    for damage in (b"", b"{", b"[]", b'{"api": 1}', b'{"api": {"value": "x"}}'):
        world.files.content[STORE] = damage
        world.start()
        assert world.credentials.get() is None
        world.turn()
        assert world.held


def configured(world: World) -> Settings:
    settings = world.settings.get()
    assert settings is not None
    return settings


def wrong_role(settings: Settings) -> Settings:
    return replace(settings, vault=replace(settings.vault, auth=AppRole("shop-wbe")))


def wrong_mesh(settings: Settings) -> Settings:
    return replace(settings, mesh=MeshSource("secret", "vmoor/mesh-x"))


@pytest.mark.parametrize("slip", [wrong_role, wrong_mesh])
def test_a_slip_in_the_configuration(slip: Callable[[Settings], Settings]) -> None:
    """A wrong role or mesh is told and takes nothing away, neither here nor over a restart."""
    world = World()
    world.turn()
    good, before, stored = configured(world), world.held, world.files.content[STORE]
    world.settings.set(slip(good))
    for _ in range(3):
        world.turn()
        assert world.loop.outcome.get().state == "fail"
        assert world.held == before
        assert world.state.get().api_expires == before.api.expires
    assert world.files.content[STORE] == stored
    world.start()
    world.turn()
    assert world.held == before
    world.settings.set(good)
    world.turn()
    assert world.loop.outcome.get().state == "ok"
    assert world.held == before
    assert "login" not in world.vault.calls


def test_the_new_configuration_takes_over() -> None:
    """Once the new configuration has credentials of its own, they alone are used and stored."""
    world = World()
    world.turn()
    before = world.held
    world.settings.set(wrong_mesh(configured(world)))
    world.turn()
    world.vault.kv[("secret", "vmoor/mesh-x")] = FACTS
    world.turn()
    assert world.held.api.generation > before.api.generation
    after = world.held
    world.vault.broken = AWAY
    world.start()
    assert world.held == after


def test_a_slip_that_lasts() -> None:
    """Credentials of the former configuration are published until their end, no longer."""
    world = World()
    world.turn()
    world.settings.set(wrong_role(configured(world)))
    run(world, 3500)
    assert world.credentials.get() is not None
    run(world, 200)
    assert world.credentials.get() is None


def test_another_workload_after_a_slip() -> None:
    """Another workload's credentials end at once, also when Vault is away and after a slip."""
    world = World()
    world.turn()
    good = configured(world)
    world.settings.set(wrong_role(good))
    world.turn()
    world.vault.broken = AWAY
    world.settings.set(replace(good, workload=Workload("shop", "web", "api")))
    world.turn()
    assert world.credentials.get() is None
    world.settings.set(good)
    world.start()
    assert world.credentials.get() is None


@pytest.mark.parametrize("call", ["read_kv", "mint"])
def test_killed_in_a_slow_call(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill during a call that hangs loses nothing of what the pass had got before."""
    world = World()

    def hang(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(world.vault, call, hang)
    with pytest.raises(Killed):
        world.turn()
    monkeypatch.undo()
    world.start()
    world.turn()
    assert world.held
    assert "login" not in world.vault.calls


def test_another_workload() -> None:
    """What was fetched for another workload is not used for this one."""
    world = World()
    world.turn()
    settings = configured(world)
    world.settings.set(replace(settings, workload=Workload("shop", "api", "api")))
    world.turn()
    assert world.credentials.get() is None
    world.settings.set(settings)
    world.start()
    assert world.credentials.get() is None


def test_refused_credential() -> None:
    """A 401 rings once and brings a new token in the next pass."""
    world = World()
    world.turn()
    world.clock.advance(60)
    old = world.held
    world.bell.clear()
    world.identity.refuse(errors.Unauthenticated("401", generation=old.api.generation))
    assert world.bell.wait(0)
    world.turn()
    assert world.held.api.generation > old.api.generation
    assert world.held.istio == old.istio


def test_late_refusal_of_an_old_credential() -> None:
    """A 401 for a generation that is gone costs nothing."""
    world = World()
    world.turn()
    world.identity.refuse(errors.Unauthenticated("401", generation=99))
    world.turn()
    assert world.vault.calls == []


def test_refused_with_vault_away() -> None:
    """A refused token stays published while no other can be had: the refusal may pass."""
    world = World()
    world.turn()
    world.clock.advance(60)
    world.vault.broken = AWAY
    old = world.held
    world.identity.refuse(errors.Unauthenticated("401", generation=old.api.generation))
    world.bell.clear()
    world.identity.refuse(errors.Unauthenticated("401", generation=old.api.generation))
    assert not world.bell.wait(0)
    world.turn()
    assert world.held == old
    world.vault.broken = None
    world.turn()
    assert world.held.api.generation > old.api.generation


def test_an_api_server_that_refuses_every_token() -> None:
    """One fresh token at once; when that is refused too, it is a cause to tell, at our pace."""
    world = World()
    world.turn()
    minted = 0
    for _ in range(60):
        world.identity.refuse(errors.Unauthenticated("401", generation=world.held.api.generation))
        world.turn()
        minted += world.vault.calls.count("mint web-vmoor")
        world.clock.advance(1)
    assert minted <= 4
    assert "the API server refuses it" in world.words


def test_facts_follow_the_key_value_store() -> None:
    """A change in KV is published within five minutes."""
    world = World()
    world.turn()
    world.vault.kv[("secret", "vmoor/mesh-a")] = {
        **FACTS,
        "istio": {**FACTS["istio"], "network": "net-b"},
    }
    run(world, 330)
    assert world.held.facts.istio.network == "net-b"


def test_broken_facts_keep_the_old_ones() -> None:
    """Facts that became malformed are told, and the old ones stay in use."""
    world = World()
    world.turn()
    first = world.held
    world.vault.kv[("secret", "vmoor/mesh-a")] = {"version": 1, "kubernetes": "oops"}
    run(world, 330)
    assert world.held.facts == first.facts
    assert world.loop.outcome.get().state == "fail"
    assert "secret/vmoor/mesh-a: kubernetes" in world.words


def test_broken_facts_are_read_at_our_pace() -> None:
    """Malformed facts are no slip in a local file: they are read again with back-off."""
    world = World()
    good = world.vault.kv[("secret", "vmoor/mesh-a")]
    world.vault.kv[("secret", "vmoor/mesh-a")] = {"version": 1, "kubernetes": "oops"}
    delays = [world.turn() for _ in range(8)]
    assert max(delays) > 2
    assert "vmoor admin publish" in world.loop.outcome.get().remedy
    world.vault.kv[("secret", "vmoor/mesh-a")] = good
    world.turn()
    assert world.held


def test_refused_facts_are_not_read_at_every_ring() -> None:
    """With good facts at hand the refused ones are read twice a minute, and told all the time."""
    world = World()
    world.turn()
    world.vault.kv.clear()
    world.clock.advance(301)
    reads = 0
    for _ in range(60):
        world.turn()
        reads += world.vault.calls.count("read_kv")
        assert "there is no such secret" in world.words
        world.clock.advance(1)
    assert reads == 2
    world.vault.kv[("secret", "vmoor/mesh-a")] = FACTS
    world.turn()
    assert world.loop.outcome.get().state == "ok"


def test_doubted_facts() -> None:
    """A doubt about the facts makes them read at once; many doubts, twice a minute."""
    world = World()
    world.turn()
    world.clock.advance(60)
    world.bell.clear()
    world.identity.recheck_facts()
    assert world.bell.wait(0)
    world.turn()
    assert world.vault.calls == ["read_kv"]
    reads = 0
    for _ in range(60):
        world.clock.advance(1)
        world.identity.recheck_facts()
        world.turn()
        reads += world.vault.calls.count("read_kv")
    assert reads == 2


def test_tokens_are_renewed_while_facts_are_broken() -> None:
    """One broken input does not stop the renewal of the rest."""
    world = World()
    world.turn()
    first = world.held
    world.vault.kv.clear()
    run(world, 1900)
    assert world.held.api.generation > first.api.generation


def test_overrides() -> None:
    """The VM's own revision and network win over the mesh's."""
    world = World()
    settings = configured(world)
    mesh = MeshSource("secret", "vmoor/mesh-a", revision="canary", network="net-b")
    world.settings.set(replace(settings, mesh=mesh))
    world.turn()
    assert world.held.facts.istio.revision == "canary"
    assert world.held.facts.istio.network == "net-b"


def test_full_disk() -> None:
    """Tokens that can't be stored are used all the same, and that is told."""
    world = World()
    world.files.full = True
    world.turn()
    assert world.held
    assert "no space left" in world.words


def test_missing_account() -> None:
    """A ServiceAccount that is missing is named; made later, it moors by itself."""
    world = World()
    world.vault.accounts.discard(("shop", "web"))
    world.turn()
    assert 'serviceaccounts "web" not found' in world.words
    world.vault.accounts.add(("shop", "web"))
    world.turn()
    assert world.held


def test_clock_jumps_ahead() -> None:
    """A VM whose clock jumps forward past every expiry fetches all anew in one pass."""
    world = World()
    world.turn()
    world.clock.offset += 7 * 3600
    world.vault.revoke_tokens()
    world.turn()
    assert world.held.api.good(world.clock.wall())


def test_clock_set_back() -> None:
    """A clock that is set back by hours stops no renewal: all is fetched anew, once."""
    world = World()
    world.turn()
    before, ends = world.held, world.state.get().vault_expires
    world.clock.offset -= 3 * 3600
    world.turn()
    assert world.held.api.generation > before.api.generation
    assert world.held.istio.generation > before.istio.generation
    assert world.state.get().vault_expires < ends
    world.turn()
    assert world.vault.calls == []


def test_refused_after_the_clock_was_set_back() -> None:
    """A token from before the clock was set back is not taken for a fresh one."""
    world = World()
    world.turn()
    before = world.held
    world.clock.offset -= 3 * 3600
    world.identity.refuse(errors.Unauthenticated("401", generation=before.api.generation))
    world.turn()
    assert world.loop.outcome.get().state == "ok"
    assert world.held.api.generation > before.api.generation
