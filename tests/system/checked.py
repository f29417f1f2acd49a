"""An application for every kind of check, which runs on a test's VM: `python3 checked.py`.

What it answers stands in files below /run/checked, so that a test can change it at any time. It
has a port for a test's http, https and gRPC, and one for each way to answer no HTTP at all.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Callable

HTTP, HTTPS, GRPC = 8202, 8203, 8204
ANSWER = Path("/run/checked/http.json")  # {"host": ..., "status": ..., "body": ...}
SERVING = Path("/run/checked/serving")  # there: SERVING
CERTIFICATES = "/etc/checked"  # ca.pem, server.pem, server.key
OK = b"HTTP/1.1 200 OK\r\n"


class Web(http.server.BaseHTTPRequestHandler):
    """As the file says to who asks for the host in it, 421 to all others."""

    def do_GET(self) -> None:
        wanted = json.loads(ANSWER.read_text())
        right = self.headers["Host"] == wanted["host"]
        body = wanted["body"].encode()
        self.send_response(wanted["status"] if right else 421)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Secure(socketserver.BaseRequestHandler):
    """200 over TLS, to clients with a certificate of the CA; the files are read each time."""

    def handle(self) -> None:
        context = ssl.create_default_context(
            ssl.Purpose.CLIENT_AUTH, cafile=f"{CERTIFICATES}/ca.pem"
        )
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(f"{CERTIFICATES}/server.pem", f"{CERTIFICATES}/server.key")
        with suppress(OSError), context.wrap_socket(self.request, server_side=True) as tls:
            tls.recv(65536)
            tls.sendall(OK + b"Content-Length: 0\r\n\r\n")


def garbage(send: Callable[[bytes], object]) -> None:
    send(bytes(range(256)) * 1000)


def headers(send: Callable[[bytes], object]) -> None:
    send(OK)
    while True:
        send(b"X: y\r\n" * 1000)


def flood(send: Callable[[bytes], object]) -> None:
    """A body of 2 GB."""
    send(OK + b"Content-Length: 2147483648\r\n\r\n")
    for _ in range(2147483648 // 65536):
        send(b"x" * 65536)


def silence(_send: Callable[[bytes], object]) -> None:
    time.sleep(3600)


def drip(send: Callable[[bytes], object]) -> None:
    send(OK + b"Content-Length: 999\r\n\r\n")
    while True:
        time.sleep(0.05)
        send(b"x")


HOSTILE = {8211: garbage, 8212: headers, 8213: flood, 8214: silence, 8215: drip}


class Hostile(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError):
            self.request.recv(65536)
            HOSTILE[self.server.server_address[1]](self.request.sendall)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def grpc_server() -> Any:
    """grpc.health.v1.Health; a HealthCheckResponse is its one field, 1 = SERVING, 2 = not."""
    import grpc

    def check(_request: bytes, _context: object) -> bytes:
        return b"\x08\x01" if SERVING.exists() else b"\x08\x02"

    methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server = grpc.server(ThreadPoolExecutor(2))
    health = grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)
    server.add_generic_rpc_handlers([health])
    server.add_insecure_port(f"0.0.0.0:{GRPC}")
    return server


def main() -> None:
    grpc = grpc_server()
    grpc.start()
    for port, handler in {HTTP: Web, HTTPS: Secure, **dict.fromkeys(HOSTILE, Hostile)}.items():
        Thread(target=Server(("", port), handler).serve_forever).start()
    grpc.wait_for_termination()


if __name__ == "__main__":
    main()
