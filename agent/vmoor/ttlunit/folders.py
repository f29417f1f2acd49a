"""Makes the folders of the ttl checks, as root with CAP_CHOWN alone.

FOLDER is root's, so the names in it are, too; inside of them, where the agent may put what it
likes, nothing is looked at. FOLDER is setgid: what is made in it is so without a chmod.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vmoor import ttlunit
from vmoor.errors import quoted
from vmoor.model.service import DNS_LABEL
from vmoor.proxyunit import settings, trusted


def main(
    etc: Path = settings.FOLDER, folder: Path = Path(ttlunit.FOLDER), agent: str = ttlunit.OWNER
) -> int:
    problems: dict[str, str] = {}
    merged, whole = _configuration(etc, problems)
    owner = pwd.getpwnam(agent)
    wanted = dict(_groups(merged))
    for name, group in wanted.items():
        try:
            gid = grp.getgrnam(group).gr_gid if group else owner.pw_gid
        except KeyError:
            problems[name] = f"there is no group {quoted(group)}, so root alone may push"
            gid = owner.pw_gid
        try:
            _make(folder / name, owner.pw_uid, gid)
        except OSError as e:
            problems[name] = quoted(f"cannot make {folder / name}: {e.strerror}")
    if whole:  # a file that cannot be read may name them
        for stale in set(os.listdir(folder)) - wanted.keys():  # noqa: PTH208 - names, not paths
            with contextlib.suppress(OSError):  # not empty: the agent still listens there
                (folder / stale).rmdir()
    told = dict(list(problems.items())[: ttlunit.TOLD_LIMIT])
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _make(path: Path, uid: int, gid: int) -> None:
    """Root's own until it is whole: nobody else enters before it has its owner."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(0o750)
    os.chown(path, uid, gid, follow_symlinks=False)


def _configuration(etc: Path, problems: dict[str, str]) -> tuple[Mapping[str, Any], bool]:
    """What root alone can have written, and whether that is all."""
    merged: Mapping[str, Any] = {}
    whole = True
    for path in settings.paths(etc):
        try:
            trusted.check(str(path))
            merged = settings.merge(merged, settings.parsed(path))
        except (trusted.Untrusted, settings.Unusable) as e:
            problems[""], whole = quoted(f"skipped {path}: {e}"), False
    return merged, whole


def _groups(merged: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Service and group ("" = root alone) of each ttl check; what is malformed is none."""
    services = merged.get("services")
    for name, service in (services if isinstance(services, dict) else {}).items():
        checks = service.get("checks") if isinstance(service, dict) else None
        for check in checks if isinstance(checks, list) else ():
            if isinstance(check, dict) and "ttl" in check and _is_label(name):
                group = check.get("group", "")
                yield name, group if isinstance(group, str) else ""


def _is_label(name: object) -> bool:
    return isinstance(name, str) and DNS_LABEL.fullmatch(name) is not None
