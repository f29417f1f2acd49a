"""python3 -m tests.bench [--runs N] [--only NAME] [--json FILE]"""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from pathlib import Path
from typing import Callable

from tests.bench import (
    checks,
    crash,
    figures,
    flap,
    fleet,
    idle,
    look,
    many,
    scene,
    start,
    ttl,
    upkeep,
)
from tests.bench.figures import Row
from tests.bench.scene import Scene
from tests.rig.errors import RigError, RigUnavailable
from tests.stage import Stage

RUNS = 20
# Each with the number of runs; those that take long do fewer by themselves.
BENCHES: dict[str, Callable[[Scene, int], list[Row]]] = {
    "start": start.agent,
    "crash": crash.service,
    "checks": checks.kinds,
    "ttl": ttl.fails,
    "flap": flap.held,
    "idle": idle.minute,
    "many": many.checked,
    "upkeep": upkeep.under_load,
    "fleet": fleet.thousands,
    "boot": start.boot,
    "look": look.thousands,  # last: it leaves 40 000 objects behind
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N")
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME",
                        help=f"one of {', '.join(BENCHES)}; may be repeated")  # fmt: skip
    parser.add_argument("--json", type=Path, default=Path("dist/bench.json"), metavar="FILE")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rows, failed = _measure(options.only or list(BENCHES), options.runs, options.json)
    except (RigError, RigUnavailable) as e:
        print(e, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\nnot measured: " + ", ".join(failed) if failed else "", flush=True)
    return 1 if failed or not rows else 0


def _measure(names: list[str], runs: int, json: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    failed = []
    where = figures.machine()
    with Stage(tell=_tell) as stage:
        ready = scene.set_up(stage, _tell)
        for name in names:
            _tell(f"-- {name}")
            try:
                rows += BENCHES[name](ready, runs)
            except Exception:  # noqa: BLE001 - the other figures are worth having
                traceback.print_exc()
                failed.append(name)
    json.parent.mkdir(parents=True, exist_ok=True)
    figures.write(json, rows, where)
    print("\n" + figures.table(rows, where))
    return rows, failed


def _tell(line: object) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
