"""A stand-in for Istio's istio-sidecar .deb: its paths, its user, its istio.service.

Istio's package is in no apt repository. The binaries inside are the rig's own: pilot-agent built
from Istio's module, Envoy without Istio's filters. vmoor must never need more of it than this.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from tests.rig import build, root
from tests.rig.process import run

VERSION = "1.31.0"

CONTROL = f"""\
Package: istio-sidecar
Version: {VERSION}
Architecture: amd64
Maintainer: vmoor's test rig <rig@localhost>
Depends: iproute2, iptables, sudo
Description: stand-in for Istio's sidecar package
"""

# Text of the kind in Istio's tools/packaging/common/istio.service.
SERVICE = """\
[Unit]
Description=istio-sidecar: The Istio sidecar
Documentation=https://istio.io/
StartLimitIntervalSec=0

[Service]
ExecStartPre=+/usr/bin/install -d -o istio-proxy -m 0755 /var/run/secrets
ExecStart=/usr/local/bin/istio-start.sh
ExecStopPost=/usr/local/bin/istio-start.sh clean
Restart=always
RestartSec=10
KillMode=mixed
TimeoutStopSec=30s

[Install]
WantedBy=multi-user.target
"""

# The part of Istio's script that a test can use: its env file, then the agent as istio-proxy.
START = """\
#!/bin/sh
set -ae
[ "${1-}" != clean ] || exit 0
[ ! -e /var/lib/istio/envoy/cluster.env ] || . /var/lib/istio/envoy/cluster.env
cd /
exec setpriv --reuid=istio-proxy --regid=istio-proxy --init-groups /usr/local/bin/pilot-agent proxy
"""

# As Istio's postinst.sh; setgid, so that the group is istio-proxy whoever starts them.
POSTINST = """\
#!/bin/sh
set -e
getent group istio-proxy >/dev/null || groupadd --system istio-proxy
getent passwd istio-proxy >/dev/null ||
    useradd --system --gid istio-proxy --home-dir /var/lib/istio istio-proxy
[ -e /etc/istio ] || ln -s /var/lib/istio /etc/istio
mkdir -p /var/lib/istio/envoy /var/lib/istio/proxy /var/lib/istio/config /var/log/istio /etc/certs
touch /var/lib/istio/config/mesh
chown -R istio-proxy:istio-proxy /var/lib/istio /var/log/istio /etc/certs
chown root:istio-proxy /usr/local/bin/envoy /usr/local/bin/pilot-agent
chmod 2755 /usr/local/bin/envoy /usr/local/bin/pilot-agent
"""


class Parts(Protocol):
    @property
    def pilot_agent(self) -> Path: ...
    @property
    def envoy(self) -> Path: ...
    @property
    def bootstrap_template(self) -> Path: ...


def package(parts: Parts, tell: root.Tell = print) -> Path:
    """The .deb, built when one of the three files is another one than before."""
    files = {
        "usr/local/bin/pilot-agent": parts.pilot_agent,
        "usr/local/bin/envoy": parts.envoy,
        "var/lib/istio/envoy/envoy_bootstrap_tmpl.json": parts.bootstrap_template,
    }
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files.values()]
    recipe = repr((CONTROL, SERVICE, START, POSTINST, stats))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    deb = build.CACHE / "sidecar" / key / f"istio-sidecar_{VERSION}_amd64.deb"
    if deb.exists():
        return deb
    tell(f"{deb.name}: packing")
    deb.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=deb.parent) as scratch:
        tree = Path(scratch, "tree")
        for target, source in files.items():
            _place(tree / target, source)
        _write(tree / "lib/systemd/system/istio.service", SERVICE)
        _write(tree / "usr/local/bin/istio-start.sh", START, 0o755)
        _write(tree / "DEBIAN/control", CONTROL)
        _write(tree / "DEBIAN/postinst", POSTINST, 0o755)
        # No compression: 200 MB of xz take longer than everything else together.
        run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree),
             f"{scratch}/made.deb"])  # fmt: skip
        Path(scratch, "made.deb").rename(deb)
    return deb


def _place(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
