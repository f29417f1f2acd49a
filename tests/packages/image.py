"""A Debian root in which nothing runs: an image's or a container's build."""

from __future__ import annotations

from pathlib import Path

from tests.rig import prerequisites, process, root

ENTER = """\
set -eu
folder=$1 lower=$2 steps=$3
shift 3
cd "$folder"
mkdir upper work merged
mount -t overlay overlay -o "lowerdir=$lower,upperdir=upper,workdir=work,volatile" merged
mount -t proc proc merged/proc
mkdir merged/given
cp -R "$@" merged/given
chroot merged sh -euxc "$steps"
"""


def run(folder: Path, steps: str, *given: Path, release: str = "bookworm") -> str:
    """What these shell commands say, in a fresh root, with copies of files or folders in /given.

    RigError if one fails. What they change is in folder/upper after.
    """
    prerequisites.install()
    layers = ":".join(str(layer) for layer in root.debian(release=release).layers)
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]
    return process.run([*enter, str(folder), layers, steps, *map(str, given)], timeout=120)
