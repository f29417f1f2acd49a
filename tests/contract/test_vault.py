"""The same promises of port Vault, held by the fake and by OpenBao beside an API server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Union

import pytest
from vmoor import errors
from vmoor.adapters import http
from vmoor.model.credential import claims, subject_mismatch
from vmoor.model.identity import VaultToken
from vmoor.model.secret import Secret

from tests.contract.vault_sides import AUTH, PATHS, FakeSide, RealSide
from tests.rig.certs import Authority
from tests.rig.rig import Rig

Side = Union[FakeSide, RealSide]


@pytest.fixture(scope="module")
def real() -> Iterator[RealSide]:
    with Rig() as rig:
        side = RealSide(rig)
        yield side
        side.close()


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Any:
    return FakeSide() if request.param == "fake" else request.getfixturevalue("real")


def login(side: Side) -> VaultToken:
    token: VaultToken = side.vault.login(AUTH, side.secret_id())
    return token


def test_login(side: Side) -> None:
    """A login gives a token with its end and its policies, and shows it to nobody."""
    token = login(side)
    assert token.expires - token.issued > 60
    assert "web" in token.policies
    assert token.renewable
    assert token.value.reveal() not in repr(token)


@pytest.mark.parametrize("role", ["shop-web", "none"])
def test_login_refused(side: Side, role: str) -> None:
    """A wrong SecretID and a wrong role are the operator's to correct, not the network's."""
    with pytest.raises(errors.Rejected, match="invalid role or secret ID") as caught:
        side.vault.login(AUTH._replace(role_id=role), Secret("canary"))
    assert AUTH.secret_id_file_path in caught.value.remedy
    assert "canary" not in repr(caught.value)


def test_five_wrong_logins_lock_the_role(side: Side) -> None:
    """Why a refused SecretID must not be sent again and again: the good one is refused too."""
    side.add_role("doomed")
    auth = AUTH._replace(role_id="doomed")
    for _ in range(5):
        with pytest.raises(errors.Rejected):
            side.vault.login(auth, Secret("wrong"))
    with pytest.raises(errors.Forbidden, match="403"):
        side.vault.login(auth, side.secret_id("doomed"))


def test_sealed(side: Side) -> None:
    """A sealed Vault is away, and says what helps."""
    secret_id = side.secret_id()
    side.seal()
    try:
        with pytest.raises(errors.Unavailable, match="is sealed") as caught:
            side.vault.login(AUTH, secret_id)
    finally:
        side.unseal()
    assert caught.value.remedy == "unseal it"
    assert side.vault.login(AUTH, secret_id)


def test_renew(side: Side) -> None:
    """A renewed token is the same one with a later end."""
    token = login(side)
    renewed = side.vault.renew(token)
    assert renewed.value == token.value
    assert renewed.expires >= token.expires


def test_revoked_token(side: Side) -> None:
    """A token that Vault knows no more is told apart from a missing right."""
    token = login(side)
    side.revoke_tokens(token)
    calls = [
        lambda: side.vault.renew(token),
        lambda: side.vault.read_kv(token, "secret", "vmoor/mesh-a"),
        lambda: side.vault.mint(token, "kubernetes", "web", "shop", ""),
    ]
    for call in calls:
        with pytest.raises(errors.Unauthenticated):
            call()


def test_missing_policy(side: Side) -> None:
    """A missing right names the path; once granted, the same token has it."""
    side.put("secret", "vmoor/mesh-a", {"version": 1})
    side.allow(())
    try:
        token = login(side)
        with pytest.raises(errors.Forbidden, match="403 on read secret/(data/)?vmoor/mesh-a"):
            side.vault.read_kv(token, "secret", "vmoor/mesh-a")
        with pytest.raises(errors.Forbidden, match="403 on update kubernetes/creds/web") as caught:
            side.vault.mint(token, "kubernetes", "web", "shop", "istio-ca")
    finally:
        side.allow(PATHS)
    assert "vmoor admin vault-policy" in caught.value.remedy
    assert side.vault.read_kv(token, "secret", "vmoor/mesh-a") == {"version": 1}


@pytest.mark.parametrize("mount", ["secret", "old"])
def test_read_kv(side: Side, mount: str) -> None:
    """KV of both versions is read by the same name, and the newest content is what is read."""
    token = login(side)
    for content in ({"version": 1, "istio": {"san": "a"}}, {"version": 1, "istio": {"san": "b"}}):
        side.put(mount, "vmoor/mesh-b", content)
        assert side.vault.read_kv(token, mount, "vmoor/mesh-b") == content


@pytest.mark.parametrize("mount", ["secret", "old"])
def test_missing_secret(side: Side, mount: str) -> None:
    """A secret that is not there is named as the configuration names it."""
    with pytest.raises(errors.Rejected, match=f"{mount}/vmoor/none: there is no such secret"):
        side.vault.read_kv(login(side), mount, "vmoor/none")


def test_wrapping(side: Side) -> None:
    """A wrapping token tells who made it, gives a SecretID that works, and is good once."""
    token = side.wrapped()
    assert side.vault.wrapping_path(token) == "auth/approle/role/shop-web/secret-id"
    assert side.vault.wrapping_path(token)
    assert side.vault.login(AUTH, side.vault.unwrap_secret_id(token))
    for again in (side.vault.unwrap_secret_id, side.vault.wrapping_path):
        with pytest.raises(errors.Rejected, match="not valid"):
            again(token)


def test_revoked_wrapping(side: Side) -> None:
    """A revoked wrapping token, and what never was one, are refused by look-up and unwrap."""
    revoked = side.wrapped()
    side.revoke_wrapped(revoked)
    for token in (revoked, Secret("hvs.canary")):
        for call in (side.vault.wrapping_path, side.vault.unwrap_secret_id):
            with pytest.raises(errors.Rejected, match="wrapping token") as caught:
                call(token)
            assert token.reveal() not in repr(caught.value)


def test_mint(side: Side) -> None:
    """The engine's tokens name their account and audience, and end when they say."""
    token = login(side)
    istio = side.vault.mint(token, "kubernetes", "web", "shop", "istio-ca")
    assert subject_mismatch(istio.value, "shop", "web") is None
    assert claims(istio.value)["aud"] == ["istio-ca"]
    life = claims(istio.value)["exp"] - claims(istio.value)["iat"]
    assert istio.expires - istio.issued == life >= 600
    api = side.vault.mint(token, "kubernetes", "web-vmoor", "shop", "")
    assert subject_mismatch(api.value, "shop", "web-vmoor") is None
    assert "kubernetes.default.svc" in claims(api.value)["aud"][0]


@pytest.mark.parametrize(
    ("role", "namespace", "words"),
    [
        ("ghost", "shop", 'serviceaccounts "ghost" not found'),
        ("web", "void", "not found"),
        ("web", "elsewhere", "elsewhere"),
        ("none", "shop", "none"),
    ],
)
def test_mint_refused(side: Side, role: str, namespace: str, words: str) -> None:
    """What is missing in Kubernetes or in the engine is told in the engine's own words."""
    with pytest.raises(errors.Rejected, match=words) as caught:
        side.vault.mint(login(side), "kubernetes", role, namespace, "")
    assert f"cannot get a token from kubernetes/creds/{role}: " in str(caught.value)
    assert len(str(caught.value)) < 400


# -- what only a real one has: TLS, addresses, a bad network -----------------------------------


def test_untrusted(real: RealSide, tmp_path: Any) -> None:
    """Neither the system's roots nor another authority make the server trusted."""
    for ca in ("", str(Authority(tmp_path).path)):
        with pytest.raises(errors.Unavailable, match="not trusted") as caught:
            real.connect(real.rig.vault.url, ca=ca).login(AUTH, Secret("x"))
        assert "vault.ca_cert does not match" in caught.value.remedy


def test_ca_replaced(real: RealSide, tmp_path: Any) -> None:
    """A CA bundle that is replaced on the disk counts from the next connection on."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(Authority(tmp_path).pem)
    vault = real.connect(real.rig.vault.url, ca=str(bundle))
    with pytest.raises(errors.Unavailable):
        vault.login(AUTH, real.secret_id())
    bundle.write_text(real.rig.authority.pem)
    assert vault.login(AUTH, real.secret_id())


def test_second_address(real: RealSide) -> None:
    """When the first address is away, the second one is used."""
    vault = real.connect("https://198.18.0.1:1", real.rig.vault.url)
    assert vault.login(AUTH, real.secret_id())


def test_nobody_listens(real: RealSide) -> None:
    """The sentence says where and why."""
    with pytest.raises(errors.Unavailable) as caught:
        real.connect("https://198.18.0.1:1").login(AUTH, Secret("x"))
    assert str(caught.value) == "cannot reach https://198.18.0.1:1: connection refused"


def test_namespace(real: RealSide) -> None:
    """The namespace of the configuration is where the login takes place."""
    real.rig.bao("namespace", "create", "team")
    real.rig.bao("auth", "enable", "-namespace=team", "approle")
    role = "auth/approle/role/shop-web"
    real.rig.bao("write", "-namespace=team", role, "role_id=shop-web")
    path = f"{role}/secret-id"
    secret_id = real.rig.bao("write", "-namespace=team", "-f", "-field=secret_id", path)
    vault = real.connect(real.rig.vault.url, namespace="team")
    assert vault.login(AUTH, Secret(secret_id.strip()))


def test_dripping_handshake() -> None:
    """A server that drips in the TLS handshake is given up at the deadline, not later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                for byte in b"\x16\x03\x03\x10\x00" + bytes(100):
                    client.sendall(bytes([byte]))
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(errors.Unavailable, match="no complete answer within 0.5 s"):
            http.Session().request("GET", url, headers={}, deadline=0.5)
        assert time.monotonic() - began < 1.0
        thread.join()


def test_bad_network(real: RealSide) -> None:
    """A dripping, silent, overloaded or failing Vault is Unavailable, in bounded time."""
    with real.rig.fault_proxy(real.rig.vault.url) as proxy:
        vault = real.connect(proxy.url)
        secret_id = real.secret_id()
        for words, fault in (
            ("no complete answer within", lambda: proxy.drip(0.5)),
            ("overloaded", lambda: proxy.status(429)),
            ("unavailable", lambda: proxy.status(502)),
            ("500", lambda: proxy.status(500)),
        ):
            fault()
            began = time.monotonic()
            with pytest.raises(errors.Unavailable, match=words):
                vault.login(AUTH, secret_id)
            # DEADLINE_S, and what a busy machine adds.
            assert time.monotonic() - began < 11.5
            proxy.clear()
        assert vault.login(AUTH, secret_id)
