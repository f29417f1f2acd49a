"""Reads /etc/vmoor and says everything that is wrong with it.

`vmoor.yaml`, then `conf.d/*.yaml` in byte order: mappings merge, scalars and lists replace. Not
for the daemon's own process: it runs `python3 -m vmoor.config.load`, so that YAML and the
schema's validator leave its memory again.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, Optional

from vmoor.config import relations, tree, wording
from vmoor.config.build import settings_from
from vmoor.config.problems import Finding, Problem
from vmoor.config.settings import Settings
from vmoor.errors import EXIT_CONFIG, EXIT_OK, Misconfigured

ROOT = Path("/etc/vmoor")
EXAMPLE = "/usr/share/doc/vmoor/examples/vmoor.yaml"
TOLD_LIMIT = 50  # problems; what follows is more of the same


class NoConfiguration(Misconfigured):
    """There is no file yet: nothing is wrong, something is to come."""


class Loaded(NamedTuple):
    settings: Settings
    document: Mapping[str, Any]  # what settings_from takes; JSON
    files: tuple[str, ...]


def load(root: Path = ROOT) -> Loaded:
    """Raises NoConfiguration, or Misconfigured with every problem."""
    files, problems, whole = _whole(root)
    if not files and not problems:
        remedy = f"begin with {EXAMPLE}"
        raise NoConfiguration([f"no configuration in {root / 'conf.d'}: {remedy}"])
    document = tree.plain(whole)
    findings = _findings(document, whole)
    if problems:  # what a file that cannot be read would have brought is not missing
        findings = tuple(f for f in findings if not f.missing)
    order = {str(file): i for i, file in enumerate(files)}
    problems.extend(_placed(finding, whole) for finding in findings)
    if problems:
        problems.sort(key=lambda p: (order.get(p.file, -1), p.line))
        raise Misconfigured(_told(problems))
    return Loaded(settings_from(document), document, tuple(str(file) for file in files))


def unchecked(root: Path = ROOT) -> Any:
    """What the files say where they can be read, however wrong the rest of them is."""
    return tree.plain(_whole(root)[2])


def _whole(root: Path) -> tuple[list[Path], list[Problem], tree.Node]:
    files, problems = _files(root)
    trees: list[tree.Node] = []
    for file in files:
        node, found = _read(file)
        problems.extend(found)
        if node is not None:
            trees.append(node)
    return files, problems, reduce(tree.merge, trees, tree.Node({}, str((files or [root])[0]), 1))


def _findings(document: Any, whole: tree.Node) -> tuple[Finding, ...]:
    found = wording.findings(document, whole)
    return (*found, *relations.findings(wording.sound(document, found)))


def _placed(finding: Finding, whole: tree.Node) -> Problem:
    node = tree.find(whole, finding.at)
    return Problem(node.file, node.line, finding.words)


def _told(problems: Sequence[Problem]) -> tuple[str, ...]:
    lines = tuple(dict.fromkeys(str(problem) for problem in problems))
    if len(lines) <= TOLD_LIMIT:
        return lines
    return (*lines[:TOLD_LIMIT], f"and {len(lines) - TOLD_LIMIT} more")


def _files(root: Path) -> tuple[list[Path], list[Problem]]:
    """The files to read, in order; and what is wrong with their names and folder."""
    folder = root / "conf.d"
    problems: list[Problem] = []
    try:
        names = sorted(os.fsencode(path.name) for path in folder.iterdir())
    except FileNotFoundError:
        names = []
    except OSError as e:
        return [], [_unreadable(folder, e)]
    found = [root / "vmoor.yaml"] if (root / "vmoor.yaml").exists() else []
    for raw in names:
        path = folder / os.fsdecode(raw)
        if path.name.startswith("."):
            continue
        if path.suffix == ".yml":
            better = path.with_suffix(".yaml")
            words = f"not read, because its name does not end in .yaml: mv {path} {better}"
            problems.append(Problem(str(path), 0, words))
        elif path.suffix == ".yaml":
            found.append(path)
    return found, problems


def _read(file: Path) -> tuple[Optional[tree.Node], tuple[Problem, ...]]:
    try:
        with file.open("rb") as f:
            content = f.read(tree.SIZE_LIMIT + 1)
    except OSError as e:
        return None, (_unreadable(file, e),)
    if len(content) > tree.SIZE_LIMIT:
        return None, (Problem(str(file), 0, "larger than 1 MiB; that is no configuration"),)
    return tree.read(str(file), content)


def _unreadable(path: Path, error: OSError) -> Problem:
    """With the command that helps. The configuration holds no secrets, so all may read it."""
    reason = (error.strerror or type(error).__name__).lower()
    if not isinstance(error, PermissionError):
        return Problem(str(path), 0, f"cannot be read: {reason}")
    try:
        info = path.stat()
    except OSError:
        return Problem(str(path), 0, f"cannot be read: {reason}: chmod 0755 {path.parent}")
    right = "0755" if stat.S_ISDIR(info.st_mode) else "0644"
    owner = f"{_user(info.st_uid)}:{_group(info.st_gid)}, mode {stat.S_IMODE(info.st_mode):04o}"
    return Problem(str(path), 0, f"cannot be read: {reason} ({owner}): chmod {right} {path}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def main(arguments: Sequence[str]) -> int:
    """The child of the daemon: prints {"document": ...} or {"problems": [...], "none": ...}."""
    root = Path(arguments[0]) if arguments else ROOT
    try:
        answer: Mapping[str, Any] = {"document": load(root).document}
        code = EXIT_OK
    except Misconfigured as e:
        answer = {"problems": e.problems, "none": isinstance(e, NoConfiguration)}
        code = EXIT_CONFIG
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
