"""The application of the tests: a web server that says the name of its VM, as a .deb.

It has a unit of its own like any application, restarts half a second after a crash, and answers
/healthz with 503 while /run/web-sick exists.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from tests.rig import build
from tests.rig.process import run

# ThreadingTCPServer: http.server's own class asks the resolver for the host's name before it
# listens, which takes seconds on a machine without one.
WEB = '''\
"""Says the name of its VM."""
import http.server
import os
import socket
import socketserver
import sys


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        sick = self.path == "/healthz" and os.path.exists("/run/web-sick")
        body = (socket.gethostname() + "\\n").encode()
        self.send_response(503 if sick else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("", int(sys.argv[1])), Web).serve_forever()
'''

UNIT = """\
[Unit]
Description=The shop's web server
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/python3 /usr/share/shop/web.py 8080
Restart=always
RestartSec=500ms
User=nobody

[Install]
WantedBy=multi-user.target
"""

CONTROL = """\
Package: shop-web
Version: 1.0
Architecture: all
Maintainer: vmoor's test rig <rig@localhost>
Depends: python3
Description: application of the test VMs
"""


def package() -> Path:
    """The .deb, built once for each content."""
    mark = hashlib.sha256((WEB + UNIT + CONTROL).encode()).hexdigest()[:12]
    made = build.CACHE / "shop" / f"shop-web_1.0_{mark}.deb"
    if made.exists():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
        tree = Path(scratch, "tree")
        for path, text in (
            ("DEBIAN/control", CONTROL),
            ("usr/share/shop/web.py", WEB),
            ("lib/systemd/system/web.service", UNIT),
        ):
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        wants = tree / "etc/systemd/system/multi-user.target.wants"
        wants.mkdir(parents=True)
        (wants / "web.service").symlink_to("/lib/systemd/system/web.service")
        run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), f"{scratch}/deb"])
        Path(scratch, "deb").rename(made)
    return made
