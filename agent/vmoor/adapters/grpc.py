"""gRPC's health check over plaintext HTTP/2. Imported when such a check runs: h2 is optional.

The call: https://github.com/grpc/grpc/blob/master/doc/health-checking.md, over
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. Of its messages only this is
needed (grpc-proto, grpc/health/v1/health.proto), which is too little for a protobuf library:

    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }  // an enum
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from vmoor.adapters import timed
from vmoor.errors import quoted
from vmoor.model.service import GrpcProbe

SERVING = "SERVING"
# How an answer begins: field 1, wire type 0 and the enum's number, of which 0 need not be sent.
STATUSES = {
    b"": "UNKNOWN",
    b"\x08\0": "UNKNOWN",
    b"\x08\1": SERVING,
    b"\x08\2": "NOT_SERVING",
    b"\x08\3": "SERVICE_UNKNOWN",
}
NOT_FOUND, UNIMPLEMENTED = "5", "12"  # doc/statuscodes.md beside the above
LIMIT = 64 << 10  # bytes of an answer, all frames of the connection together
HOST = "127.0.0.1"
_STREAM = 1  # a client's first, RFC 9113 section 5.1.1


def ask(probe: GrpcProbe, left: timed.Left) -> str:
    """SERVING, or why not. Raises OSError, and ValueError for what is no gRPC."""
    # False: bytes, for who knows what they are; and both h2 3 and 4 know it.
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=False))
    connection.initiate_connection()
    headers = {
        ":method": "POST", ":scheme": "http", ":path": "/grpc.health.v1.Health/Check",
        ":authority": f"{HOST}:{probe.port}", "te": "trailers",
        "content-type": "application/grpc", "user-agent": "vmoor",
    }  # fmt: skip
    connection.send_headers(_STREAM, list(headers.items()))
    connection.send_data(_STREAM, _request(probe.service), end_stream=True)
    with timed.dial(HOST, probe.port, left) as sock:
        return _answer(probe.service, _events(connection, sock, left))


def _answer(service: str, events: Iterator[Any]) -> str:
    told: dict[str, str] = {}
    body = b""
    for event in events:
        # A server may leave out the head and answer by trailers alone: that comes as a response.
        if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            told.update((_text(name), _text(value)) for name, value in event.headers)
        elif isinstance(event, h2.events.DataReceived):
            body += event.data
        elif isinstance(event, h2.events.StreamReset):
            return f"it reset the call: HTTP/2 error {int(event.error_code)}"
        elif isinstance(event, h2.events.ConnectionTerminated):
            return f"it goes away: HTTP/2 error {int(event.error_code)}"
        elif isinstance(event, h2.events.StreamEnded):
            break
    return _verdict(service, told, body)


def _events(connection: Any, sock: socket.socket, left: timed.Left) -> Iterator[Any]:
    """What the server says, up to LIMIT."""
    got = b""
    while len(got) < LIMIT:
        sock.settimeout(left())
        sock.sendall(connection.data_to_send())
        sock.settimeout(left())
        data = sock.recv(LIMIT - len(got))
        if not data:
            raise ValueError("it closed the connection without an answer")
        got += data
        # Its first frame must be SETTINGS, of type 4 (RFC 9113 section 3.4). h2 would take the
        # text of another protocol for the length of a frame, and wait for the rest of it.
        if got[3:4] not in (b"", b"\x04"):
            raise ValueError(f"not HTTP/2: {quoted(_text(got[:80]))}")
        try:
            events = connection.receive_data(data)
        except h2.exceptions.H2Error as e:
            # The text of some is a number and no more.
            raise ValueError(f"broken HTTP/2: {type(e).__name__} {quoted(e)}") from None
        yield from events
    raise ValueError(f"it sent {LIMIT >> 10} KiB without an end")


def _request(service: str) -> bytes:
    """A length-prefixed message; the prefix is a byte for "not compressed" and 4 of length."""
    name = service.encode()
    # Field 1 of wire type 2; its length is one byte, as the schema allows 127 ASCII letters.
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _verdict(service: str, told: Mapping[str, str], body: bytes) -> str:
    status = told.get("grpc-status")
    if status is None:
        return f"not gRPC: HTTP status {quoted(told.get(':status'))} without a grpc-status"
    if status == NOT_FOUND:
        return f"it knows no service {service!r}"
    if status == UNIMPLEMENTED:
        return "it has no grpc.health.v1.Health"
    if status != "0":
        return quoted(f"grpc-status {status}: {unquote(told.get('grpc-message', ''))}")
    prefix, message = body[:5], body[5:]
    if prefix != b"\0" + len(message).to_bytes(4, "big") or message[:2] not in STATUSES:
        return "its answer is no HealthCheckResponse"
    return STATUSES[message[:2]]


def _text(given: bytes) -> str:
    return given.decode("utf-8", "replace")
