"""Reads what the agent last wrote of itself, for `status` and `wait`."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def printable(line: str) -> str:
    """What a compromised agent wrote must not command root's terminal."""
    return "".join(c if c.isprintable() else "?" for c in line)
