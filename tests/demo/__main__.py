"""python3 -m tests.demo [--keep]"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from tests import reapers
from tests.demo import acts, around, catalog, death, mooring
from tests.demo.account import Account
from tests.rig.errors import RigError, RigUnavailable
from tests.stage import Stage

WEBS = {"web-1": "198.18.0.11", "web-2": "198.18.0.12"}
CLIENT = ("client", "198.18.0.21")


class Failed(Exception):
    """Some line was not seen; the stage keeps its logs."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    account = Account(
        mooring.STEPS, [*WEBS, CLIENT[0]], (*acts.CLAIMS, *catalog.CLAIMS, *death.CLAIMS)
    )
    try:
        _play(account, keep=keep)
    except (RigError, RigUnavailable) as e:
        print(e, file=sys.stderr)
        return 1
    except Failed:
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything but the logs was removed")
        return 130
    return 0


def _play(account: Account, *, keep: bool) -> None:
    account.heading("The mesh: etcd, API server, istiod, OpenBao, set up with `vmoor admin`")
    with Stage(tell=account.note) as stage, reapers.prepared(stage.rig, stage.mesh.sh):
        webs = [stage.vm(name, address) for name, address in WEBS.items()]
        client = stage.client(*CLIENT)
        account.heading("A VM as the client, then two from one and the same user-data")
        client_is_moored = mooring.moor(stage, [client], None, account)
        if client_is_moored and mooring.moor(stage, webs, client, account):
            _acts(acts.Acts(stage, client, webs, account), account)
            account.heading("A service that only Consul knows of")
            catalog.Catalog(stage, client, webs[1], account).play()
            account.heading("A VM dies")
            end = death.Death(stage, client, webs[1], webs[0], account)
            end.play()
            account.heading("Another is shut down")
            end.leave()
        account.summary()
        if keep:
            if not webs[0].alive:
                webs[0].boot()
            account.heading(
                "It keeps running; Ctrl-C ends it and removes everything. Look around:"
            )
            print("\n".join(around.lines(stage.rig, webs, client)), flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        if not account.fine():
            raise Failed


def _acts(play: acts.Acts, account: Account) -> None:
    account.heading("Traffic")
    play.first_request()
    account.heading("kill -9 of a service")
    play.kill_service()
    play.kill_with_retries()
    account.heading("kill -9 of an agent")
    play.kill_agent()


if __name__ == "__main__":
    sys.exit(main())
