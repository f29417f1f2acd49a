"""What was measured: numbers, rows of the table, and on which machine."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

HEAD = ("what", "vmoor", "Istio's own path", "ratio", "bar", "met?")


@dataclass(frozen=True)
class Series:
    """The same measured several times, in the order of the runs."""

    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def worst(self) -> float:
        return max(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.median:.2f} {self.unit}"
        return (
            f"median {self.median:.2f} {self.unit}, {min(self.values):.2f} to "
            f"{self.worst:.2f} (n {len(self.values)})"
        )


@dataclass(frozen=True)
class Row:
    what: str
    vmoor: object  # Series, or words
    istio: object = "-"
    bar: str = "-"
    met: Optional[bool] = None
    notes: tuple[str, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> str:
        if isinstance(self.vmoor, Series) and isinstance(self.istio, Series):
            return f"{self.vmoor.median / self.istio.median:.2f}"
        return "-"

    def cells(self) -> tuple[str, ...]:
        met = "-" if self.met is None else ("yes" if self.met else "NO")
        return (self.what, str(self.vmoor), str(self.istio), self.ratio, self.bar, met)


def machine() -> dict[str, Any]:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": platform.release(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def table(rows: Sequence[Row], where: dict[str, Any]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    notes = [f"{row.what}: {note}" for row in rows for note in row.notes]
    return "\n".join([
        "{date}, {cores} cores of {cpu}, {memory_gib} GiB, Linux {kernel}".format(**where),
        f"load average before {where['load'][0]}, after {os.getloadavg()[0]:.1f}; "
        "the whole mesh and all VMs (containers) run on this machine",
        "",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        *notes,
    ])  # fmt: skip


def write(path: Path, rows: Sequence[Row], where: dict[str, Any]) -> None:
    content = {"machine": where, "rows": [{**asdict(row), "ratio": row.ratio} for row in rows]}
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
