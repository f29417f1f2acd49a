"""`intercept remove`: takes the capture rules out, by root.

Runs whenever the proxy has gone, and until it is done the VM has no network: so it reads no
configuration, needs no binary of Istio, and imports little.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Optional

from vmoor import proxyunit
from vmoor.proxyunit import rules

# /usr/local is where Istio puts its binaries, but that one is named by its path and checked.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
TIMEOUT_S = 30.0  # istio-iptables itself waits 30 s for the lock of the legacy back end
FAMILIES = ("iptables", "ip6tables")


class Failed(Exception):
    """The message says what could not be done."""


def run(argv: Sequence[str], *, stdin: str = "", extra: Optional[Mapping[str, str]] = None) -> str:
    """Its stdout. Raises Failed with the last line of what the command said."""
    try:
        done = subprocess.run(
            list(argv), input=stdin, env={**ENVIRONMENT, **(extra or {})}, text=True,
            capture_output=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failed(f"{argv[0]}: {e}") from e
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Failed(f"{argv[0]} exits {done.returncode}: {''.join(said)}")
    return done.stdout


def there(program: str) -> bool:
    return any(
        os.access(f"{folder}/{program}", os.X_OK) for folder in ENVIRONMENT["PATH"].split(":")
    )


def saved(family: str, kind: str) -> str:
    """All rules of one family and back end, "" where there can be none."""
    command = f"{family}-{kind}-save"
    if not there(command):
        return ""
    try:
        return run([command])
    except Failed as e:
        # A kernel without that family or back end. Where rules can be set, they can be listed.
        tell(f"cannot list rules: {e}")
        return ""


def restore(family: str, kind: str, script: str) -> None:
    run([f"{family}-{kind}-restore", "--noflush", "--wait=30"], stdin=script)


def sweep() -> None:
    """Remove our rules of both back ends and families, and look again. Raises Failed."""
    problems = [
        problem
        for kind in rules.BACKENDS
        for family in FAMILIES
        if (problem := _swept(family, kind))
    ]
    if problems:
        raise Failed("; ".join(problems))


def _swept(family: str, kind: str) -> str:
    """What went wrong, "" for nothing: one family's trouble must not keep the others' rules."""
    script = rules.removal(saved(family, kind))
    if not script:
        return ""
    try:
        restore(family, kind, script)
    except Failed as e:
        return str(e)
    return f"rules are left in {family}-{kind}" if rules.removal(saved(family, kind)) else ""


def withdraw() -> None:
    """RULES goes before the rules: it never says more than is in force."""
    Path(proxyunit.RULES).unlink(missing_ok=True)


def tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def main() -> int:
    os.chdir("/")  # systemd starts us in a directory of the proxy's user
    try:
        withdraw()
        sweep()
    except (Failed, OSError) as e:
        tell(f"cannot remove the capture rules: {e}")
        return 1
    return 0
