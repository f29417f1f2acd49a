"""The wire side of a fault proxy: relays HTTP/1.1 over TLS to a real server, or does a fault."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, Optional
from urllib.parse import urlsplit

from tests.rig import inside

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade"})
_LINGER_0 = struct.pack("ii", 1, 0)  # close() sends a RST


@dataclass(frozen=True)
class Seen:
    at: float  # time.monotonic()
    request: str  # "GET /path?query"
    fate: str  # "passed", or the fault's kind


@dataclass(frozen=True)
class Fault:
    kind: str  # status, drip, hang, late or swallow
    match: re.Pattern[str]
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds_per_byte: float = 0.0
    delay: Optional[float] = None  # of the server's answer; None = until it is lifted
    lifted: threading.Event = field(default_factory=threading.Event)


class Server(ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, netns_path: Path, target: str) -> None:
        self.netns_path = netns_path
        self.target = urlsplit(target)
        self.server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.client_tls = ssl.create_default_context()
        self.faults: tuple[Fault, ...] = ()
        self.seen: list[Seen] = []
        self.relays: set[Relay] = set()
        super().__init__(listener.getsockname(), Relay, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this server is for."""


class _Dripping:
    """A file to write to, one byte at a time."""

    def __init__(self, file: Any, fault: Fault) -> None:
        self._file = file
        self._fault = fault

    def write(self, content: bytes) -> int:
        for byte in content:
            self._fault.lifted.wait(self._fault.seconds_per_byte)
            self._file.write(bytes([byte]))
        return len(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Relay(BaseHTTPRequestHandler):
    """One client's connection, in a thread inside the rig's namespace."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        inside.enter(self.server.netns_path)
        self.request = self.server.server_tls.wrap_socket(self.request, server_side=True)
        target = self.server.target
        self._upstream = HTTPSConnection(
            str(target.hostname), target.port, context=self.server.client_tls
        )
        self.server.relays.add(self)
        super().setup()

    def finish(self) -> None:
        self.server.relays.discard(self)
        self._upstream.close()
        super().finish()
        self.request.close()

    def cut(self) -> None:
        """From another thread: wake this one, whatever it waits for; it ends with a RST."""
        for connection in (self.request, self._upstream.sock):
            if connection is None:
                continue
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
                # Not SSLSocket's own, which would take the TLS state away from under the thread.
                socket.socket.shutdown(connection, socket.SHUT_RD)
            except OSError:  # closed meanwhile, which is what was wanted
                continue

    def _relay(self) -> None:
        body = self._read_body()
        request = f"{self.command} {self.path}"
        fault = next((f for f in self.server.faults if f.match.search(request)), None)
        self.server.seen.append(
            Seen(time.monotonic(), request, "passed" if fault is None else fault.kind)
        )
        if fault is None:
            self._pass_on(body)
        elif fault.kind == "status":
            self._answer(fault)
        elif fault.kind == "drip":
            plain, self.wfile = self.wfile, _Dripping(self.wfile, fault)  # type: ignore[assignment]
            self._pass_on(body)
            self.wfile = plain
        elif fault.kind in ("late", "swallow"):
            self._pass_on(body, fault)
        else:
            fault.lifted.wait()
            self.close_connection = True

    # The names that BaseHTTPRequestHandler looks for; LIST is Vault's.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_LIST = _relay  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, fault: Fault) -> None:
        self.send_response_only(fault.status)
        for name, value in {**fault.headers, "Content-Length": str(len(fault.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(fault.body)

    def _pass_on(self, body: bytes, fault: Optional[Fault] = None) -> None:
        """Relay the request and the answer; close both connections if there is none."""
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        headers["Content-Length"] = str(len(body))
        try:
            self._upstream.request(self.command, self.path, body, headers)
            response = self._upstream.getresponse()
        except (OSError, HTTPException):
            self._upstream.close()
            self.close_connection = True
            return
        if fault is not None:
            fault.lifted.wait(fault.delay)
            if fault.kind == "swallow":
                self._upstream.close()
                self.close_connection = True
                return
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self._pass_body(response)

    def _pass_body(self, response: HTTPResponse) -> None:
        """Each piece as it comes: a watch's events must not wait for each other."""
        chunked = response.length is None
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := response.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        response.close()  # read1 leaves it open at its end, and the connection unusable
