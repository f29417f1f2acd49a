"""`vmoor` and `python3 -m vmoor`.

`run` does not load the command line: the idle daemon carries no click (3 MB, 30 ms).
"""

from __future__ import annotations

import os
import sys

from vmoor import places


def main() -> int:
    if sys.argv[1:] == ["run"]:
        return run()
    from vmoor.cli.main import vmoor  # noqa: PLC0415 - see above

    vmoor(prog_name="vmoor")
    return 0


def run() -> int:
    """The daemon's life."""
    from vmoor.adapters import children  # noqa: PLC0415 - see above

    reader = children.Reader(places.ETC)
    if not os.path.exists(places.ACCEPTED):  # noqa: PTH110 - pathlib takes 10 ms
        reader.start()
    from vmoor import daemon  # noqa: PLC0415 - the child validates meanwhile

    return daemon.main(reader)


if __name__ == "__main__":
    sys.exit(main())
