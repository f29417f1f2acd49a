"""The grpc check, against Google's own server (grpcio) and against servers that are none."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Callable

import grpc
import h2.config
import h2.connection
import pytest
from vmoor.model.health import Probe
from vmoor.model.service import GrpcProbe

from tests.contract.probing import look
from tests.contract.test_probes import drip, flood, server, silence

TIMEOUT = 1.0
Handler = Callable[[bytes, Any], bytes]
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)


class Health(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers the one method by `handler`, which gets and gives the bytes of messages."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def service(self, call: Any) -> Any:
        if call.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(self.handler)


@contextmanager
def serving(*handlers: Handler) -> Iterator[int]:
    with ThreadPoolExecutor(2) as pool:
        real = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        real.add_generic_rpc_handlers([Health(handler) for handler in handlers])
        port = real.add_insecure_port("127.0.0.1:0")
        real.start()
        try:
            yield port
        finally:
            real.stop(None).wait(10)


def ask(*handlers: Handler, service: str = "") -> Probe:
    with serving(*handlers) as port:
        return look(GrpcProbe(port, service), TIMEOUT)


def refuse(code: grpc.StatusCode, words: str) -> Handler:
    return lambda _request, context: context.abort(code, words)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x08\x01", "SERVING in "),
        (b"\x08\x01\x12\x00", "SERVING in "),
        (b"", "UNKNOWN"),
        (b"\x08\x00", "UNKNOWN"),
        (b"\x08\x02", "NOT_SERVING"),
        (b"\x08\x03", "SERVICE_UNKNOWN"),
        (b"\x08\x04", "its answer is no HealthCheckResponse"),
        (b"\x08", "its answer is no HealthCheckResponse"),
        (b"hello", "its answer is no HealthCheckResponse"),
    ],
    ids=range(9),
)
def test_what_a_server_says(answer: bytes, words: str) -> None:
    """SERVING passes, and nothing else."""
    probe = ask(lambda _request, _context: answer)
    assert probe.passed is words.startswith("SERVING")
    assert probe.words.startswith(words)


@pytest.mark.parametrize(
    ("service", "sent"),
    [("", b""), ("shop.Cart", b"\x0a\x09shop.Cart"), ("x" * 127, b"\x0a\x7f" + b"x" * 127)],
)
def test_what_is_asked(service: str, sent: bytes) -> None:
    """HealthCheckRequest{service}, byte by byte."""
    asked: list[bytes] = []

    def serve(request: bytes, _context: Any) -> bytes:
        asked.append(request)
        return b"\x08\x01"

    assert ask(serve, service=service).passed
    assert asked == [sent]


def test_it_is_what_protobuf_reads_and_writes() -> None:
    """By a type made with the field and its number from health.proto."""
    from google.protobuf import wrappers_pb2

    asked: list[Any] = []

    def serve(request: bytes, _context: Any) -> bytes:
        # StringValue is `string value = 1`, UInt32Value is `uint32 value = 1`: encoded alike.
        asked.append(wrappers_pb2.StringValue.FromString(request).value)
        return bytes(wrappers_pb2.UInt32Value(value=1).SerializeToString())

    assert ask(serve, service="shop.Cart").passed
    assert asked == ["shop.Cart"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.NOT_FOUND, "it knows no service 'shop.Cart'"),
        (grpc.StatusCode.UNAVAILABLE, "grpc-status 14: draining: 50% done é"),
    ],
)
def test_a_status_in_the_trailers(code: grpc.StatusCode, words: str) -> None:
    probe = ask(refuse(code, "draining:\n50% done é"), service="shop.Cart")
    assert probe == Probe(passed=False, words=words)


def test_a_server_without_the_method() -> None:
    assert ask() == Probe(passed=False, words="it has no grpc.health.v1.Health")


def test_a_server_that_takes_its_time() -> None:
    """Gets no more than the timeout."""
    release = threading.Event()

    def wait(_request: bytes, _context: Any) -> bytes:
        release.wait(10)
        return b"\x08\x01"

    with serving(wait) as port:
        began = time.monotonic()
        probe = look(GrpcProbe(port), 0.3)
        took = time.monotonic() - began
        release.set()
    assert probe == Probe(passed=False, words="timed out after 0.3s")
    assert 0.3 <= took < 0.5


def test_nobody_listens() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        probe = look(GrpcProbe(bound.getsockname()[1]), TIMEOUT)
    assert probe == Probe(passed=False, words="connection refused")


def ended(content: bytes) -> Callable[[socket.socket], object]:
    """Sends it and no more, but takes what comes: a closed socket would answer with a reset."""

    def answer(taken: socket.socket) -> None:
        taken.sendall(content)
        taken.shutdown(socket.SHUT_WR)
        while taken.recv(4096):
            pass

    return answer


def goaway(taken: socket.socket) -> None:
    taken.sendall(SETTINGS + b"\0\0\x08\7\0\0\0\0\0" + bytes(7) + b"\x02")


def reset(taken: socket.socket) -> None:
    taken.sendall(SETTINGS + b"\0\0\4\3\0\0\0\0\1" + bytes(3) + b"\x08")


def page(taken: socket.socket) -> None:
    """HTTP/2, but of the web."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    head = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]
    client.send_headers(1, head)
    side = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    side.initiate_connection()
    side.receive_data(client.data_to_send())  # for the real request, which was read already
    side.send_headers(1, [(":status", "404")], end_stream=True)
    taken.sendall(side.data_to_send())


def endless(frame: bytes) -> Callable[[socket.socket], object]:
    def answer(taken: socket.socket) -> None:
        taken.sendall(SETTINGS)
        while True:
            taken.sendall(frame)

    return answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ended(b""), "it closed the connection without an answer"),
        (ended(SETTINGS), "it closed the connection without an answer"),
        (ended(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not HTTP/2: HTTP/1.1 400 Bad Request"),
        (ended(b"\x00\x1b[31m Kaboom\n"), "not HTTP/2: ??[31m Kaboom"),
        (ended(SETTINGS + b"\xff" * 99), "it closed the connection without an answer"),
        (ended(SETTINGS + b"\0\0\x01\0\0\0\0\0\x09x"), "broken HTTP/2: NoSuchStreamError 9"),
        (flood, "not HTTP/2: HTTP/1.1 200 OK"),
        (endless(SETTINGS), "it sent 64 KiB without an end"),
        (endless(PING), "it sent 64 KiB without an end"),
        (endless(b"\0\x40\0\xfe\0\0\0\0\0" + bytes(16384)), "it sent 64 KiB without an end"),
        (endless(b"\0\0\0\x09\0\0\0\0\1"), "broken HTTP/2: ProtocolError "),
        (goaway, "it goes away: HTTP/2 error 2"),
        (reset, "it reset the call: HTTP/2 error 8"),
        (page, "not gRPC: HTTP status 404 without a grpc-status"),
    ],
    ids=range(14),
)
def test_servers_that_are_none(answer: Callable[[socket.socket], object], words: str) -> None:
    """Are told apart in words, at once."""
    with server(answer) as port:
        began = time.monotonic()
        probe = look(GrpcProbe(port), TIMEOUT)
        took = time.monotonic() - began
    assert not probe.passed
    assert probe.words.startswith(words)
    assert took < TIMEOUT


@pytest.mark.parametrize(
    "answer",
    [silence, drip(b""), drip(SETTINGS), drip(SETTINGS + b"\0\x40\0\0\0\0\0\0\1")],
    ids=["silent", "nothing", "settings", "data"],
)
def test_the_deadline_is_for_the_whole(answer: Callable[[socket.socket], object]) -> None:
    with server(answer) as port:
        began = time.monotonic()
        probe = look(GrpcProbe(port), 0.5)
        took = time.monotonic() - began
    assert not probe.passed
    assert took < 0.7


def test_h2_is_loaded_for_such_a_check_only() -> None:
    """Most machines neither need it nor have it."""
    code = "import sys, vmoor.mooring; print(sorted({'h2', 'hpack'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, timeout=30
    )
    assert ran.stdout == b"[]\n"


def test_without_h2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check fails, and says what to install."""
    monkeypatch.delitem(sys.modules, "vmoor.adapters.grpc", raising=False)
    monkeypatch.delattr("vmoor.adapters.grpc", raising=False)
    monkeypatch.setitem(sys.modules, "h2", None)
    probe = look(GrpcProbe(80), TIMEOUT)
    assert probe == Probe(passed=False, words="needs the package python3-h2")
