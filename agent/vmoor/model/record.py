"""The small JSON records that the agent keeps for itself between two lives."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Optional


def parsed(content: Optional[bytes]) -> Mapping[str, Any]:
    """{} for no file, and for one that was cut short or is something else: as if never kept."""
    try:
        record = json.loads(content or b"{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
