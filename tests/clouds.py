"""The metadata services of three clouds, as far as their documents describe notices.

AWS answers only to an IMDSv2 token, Google and Azure only to their header, and none to a request
that came by a proxy; a test sets what they say.
"""

from __future__ import annotations

import itertools
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional
from urllib.parse import parse_qs, urlsplit

SPOT = json.dumps({"action": "terminate", "time": "2026-11-24T18:02:00Z"})
TOKEN = "X-aws-ec2-metadata-token"


class Metadata:
    """Context manager; attributes are what is said now, None or "" = nothing (404)."""

    def __init__(self, listener: Optional[socket.socket] = None) -> None:
        self.spot: Optional[str] = None
        self.target: Optional[str] = None
        self.name = "web-1"
        self.events: list[dict[str, Any]] = []
        self.status = 0  # instead of any answer
        self.raw: Optional[bytes] = None  # instead of any body
        self.headers: dict[str, str] = {}  # of all answers
        self.tokens: set[str] = set()  # valid ones
        self.asked: list[str] = []
        self.told: list[str] = []  # by hooks, which PUT it
        self.changed = threading.Condition()
        self._preempted, self._etag = "FALSE", 1
        self._numbers = itertools.count(1)
        own = socket.create_server(("127.0.0.1", 0)) if listener is None else listener
        metadata = self

        class Bound(_Handler):
            cloud = metadata

        self._server = ThreadingHTTPServer(own.getsockname(), Bound, bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = own
        self._server.daemon_threads = True
        self._server.block_on_close = False
        host, port = own.getsockname()[:2]
        self.url = f"http://{host}:{port}"

    def __enter__(self) -> Metadata:  # noqa: PYI034
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def event(self, kind: str, *, vm: str = "", status: str = "Scheduled", at: str = "") -> None:
        self.events = [
            {
                "EventId": "A1B2", "EventType": kind, "EventStatus": status,
                "ResourceType": "VirtualMachine", "Resources": [vm or self.name], "NotBefore": at,
            }
        ]  # fmt: skip

    def preempt(self) -> None:
        with self.changed:
            self._preempted, self._etag = "TRUE", self._etag + 1
            self.changed.notify_all()

    def preempted(self, etag: str, seconds: float) -> tuple[str, str]:
        """Value and ETag, as soon as that is another one, or the time is over."""
        with self.changed:
            if etag:
                self.changed.wait_for(lambda: str(self._etag) != etag, seconds)
            return self._preempted, str(self._etag)

    def new_token(self) -> str:
        token = f"AQAEAL{next(self._numbers)}=="
        self.tokens.add(token)
        return token


class _Handler(BaseHTTPRequestHandler):
    cloud: Metadata
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.cloud.asked.append(f"PUT {self.path}")
        ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.path == "/told":
            length = int(self.headers.get("Content-Length", "0"))
            self.cloud.told.append(self.rfile.read(length).decode())
            self._say(200)
        elif self.path != "/latest/api/token" or not ttl.isdecimal() or int(ttl) > 21600:
            self._say(400)
        else:
            self._say(self.cloud.status or 200, self.cloud.new_token())

    def do_GET(self) -> None:
        self.cloud.asked.append(f"GET {self.path}")
        parts = urlsplit(self.path)
        if self.cloud.status:
            self._say(self.cloud.status)
        elif parts.path.startswith("/latest/meta-data/"):
            self._aws(parts.path.removeprefix("/latest/meta-data/"))
        elif parts.path == "/computeMetadata/v1/instance/preempted":
            self._gce({key: values[0] for key, values in parse_qs(parts.query).items()})
        else:
            self._azure(self.path)

    def _aws(self, path: str) -> None:
        said = {
            "spot/instance-action": self.cloud.spot,
            "autoscaling/target-lifecycle-state": self.cloud.target,
        }.get(path)
        if self.headers.get(TOKEN) not in self.cloud.tokens:
            self._say(401)
        elif said is None:
            self._say(404, "not found")
        else:
            self._say(200, said)

    def _gce(self, query: dict[str, str]) -> None:
        if self.headers.get("Metadata-Flavor") != "Google":
            self._say(403)
            return
        etag = query.get("last_etag", "") if query.get("wait_for_change") == "true" else ""
        value, now = self.cloud.preempted(etag, float(query.get("timeout_sec", "3600")))
        self._say(200, value, **{"ETag": now, "Metadata-Flavor": "Google"})

    def _azure(self, path: str) -> None:
        said = {
            "/metadata/instance/compute/name?api-version=2021-02-01&format=text": self.cloud.name,
            "/metadata/scheduledevents?api-version=2020-07-01": json.dumps(
                {"DocumentIncarnation": 1, "Events": self.cloud.events}
            ),
        }.get(path)
        known = self.headers.get("Metadata") == "true" and "X-Forwarded-For" not in self.headers
        self._say(200 if known and said is not None else 400, said or "")

    def _say(self, status: int, body: str = "", **headers: str) -> None:
        content = body.encode() if self.cloud.raw is None else self.cloud.raw
        self.send_response(status)
        for name, value in {**headers, **self.cloud.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Tests look at `asked`."""
