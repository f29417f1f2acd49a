#!/usr/bin/python3
"""Print the packages' bill of materials as CycloneDX 1.5: vmoor and the libraries that it needs.

Usage: sbom.py > FILE. The packages hold no library of others, so the dependencies have lower
bounds and no versions: those the machine's own package manager knows.
"""

from __future__ import annotations

import configparser
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    source = (ROOT / "agent/vmoor/__init__.py").read_text("utf-8")
    (version,) = re.findall(r'__version__ = "(.+)"', source)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    required = setup["options"]["install_requires"].split()
    optional = [
        line for extra in setup["options.extras_require"].values() for line in extra.split()
    ]
    parts = [component(line, "required") for line in required]
    parts += [component(line, "optional") for line in optional]
    ours = f"pkg:generic/vmoor@{version}"
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": ours, "name": "vmoor", "version": version,
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
        },
        "components": parts,
        "dependencies": [{"ref": ours, "dependsOn": [part["bom-ref"] for part in parts]}],
    }  # fmt: skip
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def component(requirement: str, scope: str) -> dict[str, Any]:
    """`hvac>=0.11.2` as a library that the distribution brings."""
    name, _, least = requirement.partition(">=")
    return {
        "type": "library", "bom-ref": f"pkg:pypi/{name.lower()}", "name": name, "scope": scope,
        "purl": f"pkg:pypi/{name.lower()}",
        "properties": [{"name": "vmoor:at-least", "value": least}],
    }  # fmt: skip


if __name__ == "__main__":
    main()
