"""`vmoor` and `python3 -m vmoor`.

`run` does not load the command line: the idle daemon carries no click (3 MB, 30 ms).
"""

from __future__ import annotations

import sys


def main() -> int:
    if sys.argv[1:] == ["run"]:
        from vmoor import daemon  # noqa: PLC0415 - see above

        return daemon.main()
    from vmoor.cli.main import vmoor  # noqa: PLC0415 - see above

    vmoor(prog_name="vmoor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
