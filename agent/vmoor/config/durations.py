"""Durations as people write them: 10s, 500ms, 2m, 1.5h."""

from __future__ import annotations

import re

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Raises ValueError for anything else, a number without a unit too."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration such as 10s or 500ms")
    return float(found[1]) * UNITS[found[2]]
