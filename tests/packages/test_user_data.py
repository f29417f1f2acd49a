"""What docs/cloud-init.md says, as a fleet's owner would run it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.packages import image
from tests.rig import process
from tests.stage import PROJECT

TEXTS = ("apt", "image", "url", "yum")
VMOOR = f"""\
#!/bin/sh
PYTHONPATH={PROJECT}/agent exec {sys.executable} -m vmoor "$@"
"""
JUDGE = """\
for text in /given/texts/*.yaml; do
    cloud-init devel render -i /given/texts/instance.json $text |
        sed -n '/^#cloud-config/,$p' >/rendered
    grep -q 'content: "hvs.wrapped"' /rendered
    cloud-init schema --config-file /rendered
done
"""


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the documented commands were run."""
    folder = tmp_path_factory.mktemp("owner") / "texts"
    folder.mkdir()
    (commands,) = re.findall(
        r"```sh\n(fleet=.*?)```", (PROJECT / "docs/cloud-init.md").read_text(), re.DOTALL
    )
    (folder / "vmoor").write_text(VMOOR)
    (folder / "vmoor").chmod(0o755)
    for name in ("vmoor.asc", "vmoor.deb", "istio-sidecar.deb"):
        (folder / name).write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    (folder / "instance.json").write_text(
        json.dumps({"ds": {"meta_data": {"vmoor_wrap": "hvs.wrapped"}}})
    )
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    process.run(["sh", "-euc", f"cd {folder}\n{commands}"], env=environment)
    return folder


@pytest.mark.parametrize("release", ["bookworm", "trixie"])
def test_cloud_init_accepts_the_documented_texts(
    texts: Path, tmp_path: Path, release: str
) -> None:
    """The release's own cloud-init renders them and finds nothing against its schema."""
    assert sorted(text.stem for text in texts.glob("*.yaml")) == sorted(TEXTS)
    said = image.run(tmp_path, JUDGE, texts, release=release)
    assert said.count("Valid") == len(TEXTS)
