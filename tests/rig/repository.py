"""Makes a directory of .deb files an apt repository: `deb [trusted=yes] file:/srv/repo ./`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.rig.process import run


def index(folder: Path) -> None:
    """Writes `Packages` anew; call it after the last file was put there."""
    stanzas = []
    for deb in sorted(folder.glob("*.deb")):
        control = run(["dpkg-deb", "--field", str(deb)])
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        size = deb.stat().st_size
        stanzas.append(f"{control}Filename: ./{deb.name}\nSize: {size}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(stanzas))
    folder.chmod(0o755)  # apt reads as a user of its own
