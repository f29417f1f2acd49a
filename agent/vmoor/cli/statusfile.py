"""Reads what the agent last wrote of itself, for `status` and `wait`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

PATH = Path("/run/vmoor/status.json")
# The agent writes with each beat (3 s); a document older than this has no writer any more.
STALE_S = 15.0


def read(path: Path = PATH) -> Optional[Mapping[str, Any]]:
    """None when there is none: the agent has not run since the boot."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        return {"state": "unknown", "headline": f"cannot read {path}: {e}", "written": 0.0}
    return document if isinstance(document, dict) else None


def conditions(document: Mapping[str, Any]) -> Iterator[str]:
    """Lines about services that are well and that nobody reaches. The table has the sick ones."""
    for c in document.get("conditions", ()):
        if c["type"] == "unseen":
            yield f"{c['service']} {c['words']}"
            if c["remedy"]:
                yield f"Fix:  {c['remedy']}"


def printable(line: str) -> str:
    """What a compromised agent wrote must not command root's terminal."""
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else "?" for c in line)
