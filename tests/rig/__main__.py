"""python3 -m tests.rig build | up: make the rig's programs, or start a rig to look around in."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.rig import build, prerequisites
from tests.rig.errors import RigError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.rig", description="vmoor's test mesh")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="install, compile and fetch what the rig needs")
    commands.add_parser("up", help="start a rig and keep it until Ctrl-C")
    try:
        _build() if parser.parse_args().command == "build" else _up()
    except RigError as e:
        print(e, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _build() -> None:
    prerequisites.check(build.CACHE, built=build.locate().complete)
    prerequisites.install()
    build.build()
    print(f"the rig's programs are in {build.CACHE}")


def _up() -> None:
    from tests.rig.rig import Rig  # needs packages that `build` must not need

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    with Rig() as rig:
        print(f"ready after {time.monotonic() - started:.1f} s; Ctrl-C ends it. To look around:\n")
        print(f"  ip netns exec {rig.network.netns_name} bash")
        for name, value in rig.env.items():
            print(f"  export {name}={value}")
        print(f"\nlogs: {rig.log_dir}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
