"""The response-wrapped SecretID: unwrapped once, whatever happens in between."""

from __future__ import annotations

import pytest
from vmoor import errors
from vmoor.config.settings import AppRole
from vmoor.model import wrapping
from vmoor.model.secret import Secret
from vmoor.model.wrapping import Decision, Wrapped

from tests.fakes.files import Killed
from tests.unit.identity.world import SECRET_ID, World

PATH = "auth/approle/role/shop-web/secret-id"
STORE = "/var/lib/vmoor/secret-id.json"


@pytest.fixture
def world() -> World:
    world = World(AppRole("shop-web", secret_id_response_wrapping_path=PATH))
    world.put_secret_id(world.vault.new_wrapped("shop-web"))
    return world


def test_unwrapped_once(world: World) -> None:
    """The first login looks up and unwraps; later logins, and restarts, use what is stored."""
    world.turn()
    assert world.vault.calls[:3] == ["wrapping_path", "unwrap", "login"]
    assert world.held
    assert world.files.modes[STORE] == 0o600
    assert STORE in world.files.durable
    world.files.remove("/run/vmoor/credentials.json")
    world.start()
    world.turn()
    assert world.vault.calls[0] == "login"


def test_the_wrapping_token_is_not_stored(world: World) -> None:
    """Only its digest is on the disk."""
    token = world.files.content[SECRET_ID].strip()
    world.turn()
    assert token not in world.files.content[STORE]


def test_the_file_may_go_after_use(world: World) -> None:
    """A used token's file that was removed leaves the stored SecretID in use."""
    world.turn()
    world.files.remove(SECRET_ID)
    world.files.remove("/run/vmoor/credentials.json")
    world.start()
    world.turn()
    assert world.held


def test_killed_before_the_state_is_written(world: World) -> None:
    """Nothing was sent yet: the next process goes on."""
    world.files.kill_before_write = wrapping.UNWRAPPING
    with pytest.raises(Killed):
        world.turn()
    assert world.vault.calls == ["wrapping_path"]
    world.files.kill_before_write = None
    world.start()
    world.turn()
    assert world.held


def test_killed_between_unwrap_and_rename(world: World) -> None:
    """The SecretID is lost: told, never unwrapped again, and a new token heals it."""
    world.files.kill_before_write = '"used"'
    with pytest.raises(Killed):
        world.turn()
    world.files.kill_before_write = None
    world.start()
    world.turn()
    assert "interrupted" in world.words
    assert not world.loop.outcome.get().security
    assert world.vault.calls == []
    world.put_secret_id(world.vault.new_wrapped("shop-web"))
    world.turn()
    assert world.held


def test_unwrapped_by_someone_else(world: World) -> None:
    """A security event, one look-up for any number of passes; a new token heals it."""
    world.vault.unwrap_secret_id(Secret(world.files.content[SECRET_ID].decode().strip()))
    world.turn()
    assert world.loop.outcome.get().security
    assert "someone else" in world.words
    for _ in range(3):
        world.turn()
        assert world.vault.calls == []
        assert world.loop.outcome.get().security
    world.put_secret_id(world.vault.new_wrapped("shop-web"))
    world.turn()
    assert world.held


def test_made_by_another_path(world: World) -> None:
    """A token of another creation path is never unwrapped: somebody replaced it."""
    world.put_secret_id(world.vault.new_wrapped("shop-web", path="sys/wrapping/wrap"))
    world.turn()
    assert world.loop.outcome.get().security
    assert "made by sys/wrapping/wrap" in world.words
    assert world.vault.calls == ["wrapping_path"]
    assert STORE not in world.files.content


def test_vault_away_during_the_unwrap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unwrap without an answer is not sent again."""

    def lost(_: Secret) -> Secret:
        raise errors.Unavailable("cannot reach https://vault: no complete answer")

    monkeypatch.setattr(world.vault, "unwrap_secret_id", lost)
    world.turn()
    monkeypatch.undo()
    world.turn()
    assert "interrupted" in world.words


def test_full_disk_after_the_unwrap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SecretID that can't be stored yet is kept in memory and stored when there is room."""
    unwrap = world.vault.unwrap_secret_id

    def fill_the_disk(token: Secret) -> Secret:
        world.files.full = True
        return unwrap(token)

    monkeypatch.setattr(world.vault, "unwrap_secret_id", fill_the_disk)
    world.turn()
    assert "no space left" in world.words
    world.turn()
    assert "no space left" in world.words
    world.files.full = False
    world.turn()
    assert world.held
    assert wrapping.decode(world.files.content[STORE]).state == wrapping.USED


def test_vault_away_during_the_lookup(world: World) -> None:
    """Before the unwrap nothing is lost."""
    world.vault.sealed = True
    world.turn()
    world.vault.sealed = False
    world.turn()
    assert world.held


TOKEN = Secret("token")
NAME = wrapping.digest(TOKEN)


@pytest.mark.parametrize(
    ("token", "stored", "refused", "decision"),
    [
        (None, Wrapped(), "", Decision.WAIT),
        (None, Wrapped(NAME, "unwrapping"), "", Decision.WAIT),
        (None, Wrapped(NAME, "used", Secret("x")), "", Decision.USE),
        (TOKEN, Wrapped(), "", Decision.UNWRAP),
        (TOKEN, Wrapped(NAME, "used", Secret("x")), "", Decision.USE),
        (TOKEN, Wrapped(NAME, "used", Secret("x")), NAME, Decision.USE),
        (TOKEN, Wrapped(NAME, "unwrapping"), "", Decision.INTERRUPTED),
        (TOKEN, Wrapped(NAME, "unwrapping"), NAME, Decision.REFUSED),
        (TOKEN, Wrapped(), NAME, Decision.REFUSED),
        (TOKEN, Wrapped("other", "used", Secret("x")), "", Decision.UNWRAP),
        (TOKEN, Wrapped("other", "unwrapping"), "other", Decision.UNWRAP),
    ],
)
def test_decide(token: Secret, stored: Wrapped, refused: str, decision: Decision) -> None:
    """Every state and every token has one decision."""
    assert wrapping.decide(token, stored, refused) is decision


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"{}", b"\xff", b"1"])
def test_damaged_state(damage: bytes) -> None:
    """A damaged file is no state, never an error."""
    assert wrapping.decode(damage) == Wrapped()
