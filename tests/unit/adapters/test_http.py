"""The hard deadline, and that no error tells a secret."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from vmoor import errors
from vmoor.adapters import http

from tests.rig.certs import Authority
from tests.unit.adapters.wire import Net, dripping

URL = "http://198.18.0.1:8200/v1/sys/health?a=b"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
OK = [(0.1, HEAD + b"0123456789")]


def session(net: Net, limit: int = 1000) -> http.Session:
    return http.Session(clock=net.clock.now, dial=net.dial, limit=limit)


def get(session: http.Session, deadline: float = 5.0) -> http.Answer:
    return session.request("GET", URL, headers={"X-Vault-Token": "canary"}, deadline=deadline)


@pytest.mark.parametrize(
    "script",
    [
        dripping(HEAD + b"0123456789", 1.0),
        [(0.1, HEAD), *dripping(b"0123456789", 1.0)],
        [(0.1, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), *dripping(b"5" * 9, 1)],
        [(60.0, HEAD)],
    ],
    ids=["headers", "body", "chunk", "silence"],
)
def test_a_dripping_server_ends_in_time(script: list[tuple[float, bytes]]) -> None:
    """However the answer drips, the call is over at its deadline, and its connection closed."""
    net = Net(script)
    began = net.clock.now()
    with pytest.raises(errors.Unavailable, match="no complete answer within 5.0 s"):
        get(session(net))
    assert net.clock.now() - began == pytest.approx(5.0)
    assert net.dialled[0].closed


def test_answer() -> None:
    """A complete answer has status, headers of any case, and body; the query is sent."""
    told = b"HTTP/1.1 429 Slow down\r\nretry-after: 7\r\nContent-Length: 10\r\n\r\n0123456789"
    net = Net([(0.1, told)])
    answer = get(session(net))
    assert (answer.status, answer.body, answer.retry_after) == (429, b"0123456789", 7.0)
    assert net.dialled[0].sent.startswith(b"GET /v1/sys/health?a=b HTTP/1.1\r\n")


def test_kept_connection() -> None:
    """The second request goes over the same connection, with a deadline of its own."""
    net = Net([*OK, *OK])
    one = session(net)
    get(one)
    net.clock.advance(100)
    get(one)
    assert len(net.dialled) == 1


def test_connection_closed_while_idle() -> None:
    """A kept connection that the server closed meanwhile is replaced, not stumbled over."""
    net = Net(OK, OK)
    one = session(net)
    get(one)
    get(one)
    assert len(net.dialled) == 2
    assert net.dialled[0].closed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "connection closed without an answer"),
        (HEAD + b"01", "not a complete HTTP answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a complete HTTP answer"),
        (HEAD.replace(b" 10", b" 5000") + b"x" * 5000, "longer than 1000 bytes"),
        (
            b"HTTP/1.1 307 x\r\nLocation: https://a/canary\r\nContent-Length: 0\r\n\r\n",
            "it redirects to https://a",
        ),
    ],
)
def test_broken_answers(answer: bytes, words: str) -> None:
    """What is no usable answer is Unavailable, in words, without what came or went."""
    net = Net([(0.1, answer)])
    with pytest.raises(errors.Unavailable, match=words) as caught:
        get(session(net))
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert net.dialled[0].closed


def test_refused() -> None:
    """A refused connection names the address and the reason."""
    with pytest.raises(errors.Unavailable) as caught:
        get(session(Net()))
    assert str(caught.value) == "cannot reach http://198.18.0.1:8200: connection refused"


def test_a_header_that_cannot_be_sent() -> None:
    """A token with a line break is not quoted by any library's error."""
    with pytest.raises(errors.Rejected) as caught:
        session(Net(OK)).request("GET", URL, headers={"A": "canary\nx"}, deadline=5)
    assert "canary" not in repr(caught.value)
    with pytest.raises(errors.Rejected) as caught:
        session(Net(OK)).for_hvac().request("GET", URL, headers={"A": "canary\nx"}, timeout=5)
    assert "canary" not in repr(caught.value)


def test_repr_of_an_answer() -> None:
    """An answer's repr shows neither headers nor body."""
    answer = http.Answer(200, "https://a", {"x": "canary"}, b"canary")
    assert "canary" not in repr(answer)


def test_not_json() -> None:
    """A page of some proxy in place of JSON is Unavailable, not a bug."""
    with pytest.raises(errors.Unavailable, match="not JSON"):
        http.Answer(502, "https://a", {}, b"<html>canary").json()


def chunk(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_stream() -> None:
    """Lines come as the server sends them, across chunks; its end is the end."""
    net = Net([(1, STREAM), (20, chunk(b"one\nt")), (20, chunk(b"wo\n")), (20, b"0\r\n\r\n")])
    lines = session(net).stream("GET", URL, headers={}, deadline=5, idle=30)
    assert list(lines) == [b"one\n", b"two\n"]
    assert net.dialled[0].closed


def test_silent_stream() -> None:
    """A stream on which no line is completed for too long ends, dripping or not."""
    net = Net([(1, STREAM), (20, chunk(b"one\n")), (20, chunk(b"tw")), (20, chunk(b"o\n"))])
    lines = session(net).stream("GET", URL, headers={}, deadline=5, idle=30)
    assert next(lines) == b"one\n"
    with pytest.raises(errors.Unavailable, match="within 30.0 s"):
        next(lines)


def test_stream_refused() -> None:
    """A plain answer in place of a stream is handed to the adapter that asked."""
    net = Net([(0.1, b"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\n{}")])
    with pytest.raises(http.NotOk) as caught:
        next(session(net).stream("GET", URL, headers={}, deadline=5, idle=30))
    assert (caught.value.answer.status, caught.value.answer.body) == (410, b"{}")


def test_servers() -> None:
    """The next address is asked when one is away, with a fair share of the time, and kept."""
    net = Net()
    asked: list[tuple[str, float]] = []

    def call(url: str, seconds: float) -> str:
        asked.append((url, round(seconds, 3)))
        if url == "https://a":
            net.clock.advance(seconds)
            raise errors.Unavailable("away")
        return url

    servers = http.Servers(["https://a/", "https://b"], net.clock.now)
    assert servers.ask(call, 10) == "https://b"
    assert servers.ask(call, 10) == "https://b"
    assert asked == [("https://a", 5), ("https://b", 5), ("https://b", 5)]


def test_one_callers_way_round_is_not_anothers() -> None:
    """Two ask at once while the first address is away: both come to the second."""
    servers = http.Servers(["https://a", "https://b"])

    def call(url: str, _: float) -> str:
        if url == "https://a":
            raise errors.Unavailable("away")
        return url

    def interrupted(url: str, seconds: float) -> str:
        if url == "https://a":
            assert servers.ask(call, 10) == "https://b"  # another thread, meanwhile
        return call(url, seconds)

    assert servers.ask(interrupted, 10) == "https://b"
    assert servers.current == "https://b"


def test_all_servers_away() -> None:
    """When none answers, the last one's reason is told."""

    def call(url: str, _: float) -> str:
        raise errors.Unavailable(url)

    with pytest.raises(errors.Unavailable, match="https://b"):
        http.Servers(["https://a", "https://b"]).ask(call, 1)


def test_unreadable_ca() -> None:
    """A CA bundle that is not there is this machine's fault, and named."""
    one = http.Session(ca="/none/ca.pem", ca_name="vault.ca_cert")
    with pytest.raises(errors.LocalFault, match="/none/ca.pem: no such file") as caught:
        one._context()
    assert "vault.ca_cert" in caught.value.remedy


def test_only_the_given_ca_is_trusted(tmp_path: Path) -> None:
    """With a CA of its own, as text or file, a session trusts none of the system's."""
    authority = Authority(tmp_path)
    for ca in (authority.pem, str(authority.path)):
        assert len(http.Session(ca=ca)._context().get_ca_certs()) == 1


def test_a_ca_that_is_none() -> None:
    """Text that only looks like a certificate is told with the name of its key."""
    pem = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
    with pytest.raises(errors.LocalFault, match="of kubernetes.ca: no PEM certificate in it"):
        http.Session(ca=pem, ca_name="kubernetes.ca")._context()


def test_what_is_ended_asks_nothing_any_more() -> None:
    """The connection that would be made is not used; that a running request ends, a real socket
    shows: tests/contract/test_consul.py."""
    net = Net(OK, OK)
    one = session(net)
    one.end()
    for _ in range(2):
        with pytest.raises(
            errors.Unavailable, match="cannot reach http://198.18.0.1:8200: dropped"
        ):
            get(one)
    assert [wire.sent for wire in net.dialled] == [b"", b""]


def test_certificates_are_judged_the_same_on_each_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where Python asks for an authority key identifier, which API servers' lack, nothing
    else is given up: chain and name are verified."""
    strict = ssl.create_default_context()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: strict)
    context = http.Session()._context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
