"""One benchmark that needs a cluster and no VM, outside `make bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests import mesh_setup
from tests.bench import figures
from tests.bench.figures import Row
from tests.rig.rig import Rig


def run(measure: Callable[[Rig, Callable[[str], str], int], list[Row]], vms: int) -> None:
    """With as many VMs as the command line says, else `vms`."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else vms
    where = figures.machine()
    with Rig() as rig:
        rows = measure(rig, mesh_setup.moor_ready(rig).sh, size)
    print(figures.table(rows, where))
