#!/usr/bin/python3
"""Make what CHANGELOG.md calls Unreleased a version, everywhere the version stands.

Usage: version.py X.Y.Z YYYY-MM-DD. Writes the agent's __version__, CHANGELOG.md, debian/changelog
and the spec with its %changelog, which take their lines from CHANGELOG.md. Look at `git diff`,
commit and tag.
"""

from __future__ import annotations

import datetime
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHO = "vmoor developers <vmoor@example.com>"
MARK = "## [Unreleased]\n"


def main(version: str, date: str) -> None:
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version):
        raise SystemExit(f"cannot release {version}: want X.Y.Z")
    day = datetime.date.fromisoformat(date)
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    before, mark, after = text.partition(MARK)
    section, _, _ = after.partition("\n## [")
    lines = entries(section)
    if not (mark and lines):
        raise SystemExit("cannot release: CHANGELOG.md has nothing below [Unreleased]")
    write("CHANGELOG.md", f"{before}{MARK}\n## [{version}] - {day:%Y-%m-%d}\n{after}")

    debian = [f"vmoor ({version}-1) unstable; urgency=medium", ""]
    debian += [wrapped(line, "  * ", 79) for line in lines]
    debian += ["", f" -- {WHO}  {day:%a, %d %b %Y} 06:00:00 +0000", "", ""]
    old = (ROOT / "debian/changelog").read_text("utf-8")
    write("debian/changelog", "\n".join(debian) + old)

    rpm = [
        f"* {day:%a %b %d %Y} {WHO} - {version}-1",
        *(wrapped(line, "- ", 79) for line in lines),
    ]
    spec = (ROOT / "rpm/vmoor.spec").read_text("utf-8")
    spec = spec.replace("%changelog\n", "%changelog\n" + "\n".join(rpm) + "\n\n")
    write("rpm/vmoor.spec", re.sub(r"(?m)^(Version: +).*$", rf"\g<1>{version}", spec))

    module = "agent/vmoor/__init__.py"
    source = (ROOT / module).read_text("utf-8")
    write(module, re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', source))


def entries(section: str) -> list[str]:
    """One line for each point, without Markdown, its heading first unless that is Added."""
    found: list[str] = []
    heading = ""
    for line in section.splitlines():
        if line.startswith("### "):
            heading = "" if line == "### Added" else f"{line[4:]}: "
        elif line.startswith("- "):
            found.append(heading + line[2:])
        elif line.startswith("  ") and found:
            found[-1] += " " + line.strip()
    return [line.replace("`", "") for line in found]


def wrapped(text: str, bullet: str, width: int) -> str:
    return textwrap.fill(
        # What begins a macro in a spec.
        text.replace("%", "%%") if bullet == "- " else text,
        width, initial_indent=bullet, subsequent_indent=" " * len(bullet),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def write(path: str, text: str) -> None:
    (ROOT / path).write_text(text, "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
