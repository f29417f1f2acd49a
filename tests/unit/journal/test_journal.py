"""What of a log record reaches the journal."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from vmoor.adapters.journal import MESSAGE_IDS, JournalHandler, StderrHandler
from vmoor.model.health import Health

PROJECT = Path(__file__).resolve().parents[3]


class Journal:
    """Takes what systemd.journal.send would."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def send(self, message: str, **fields: Any) -> None:
        self.lines.append({"MESSAGE": message, **fields})


def record(level: int, message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("vmoor.x", level, "/x.py", 7, message, args, None, "work")
    made.__dict__.update(extra)
    return made


def test_only_the_white_list_is_sent() -> None:
    """The sentence and named fields; never the arguments nor whatever `extra` carries."""
    journal = Journal()
    line = record(logging.INFO, "%.1s is out", "s3cret", VMOOR_EVENT="out", token="s3cret")
    JournalHandler(journal.send).emit(line)
    assert journal.lines == [
        {
            "MESSAGE": "s is out",
            "PRIORITY": 6,
            "SYSLOG_IDENTIFIER": "vmoor",
            "LOGGER": "vmoor.x",
            "THREAD_NAME": line.threadName,
            "CODE_FILE": "/x.py",
            "CODE_LINE": 7,
            "CODE_FUNC": "work",
            "VMOOR_EVENT": "out",
        }
    ]


@pytest.mark.parametrize(
    ("level", "priority"),
    [
        (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
        (logging.DEBUG, 7),
    ],
)  # fmt: skip
def test_priorities(level: int, priority: int) -> None:
    """syslog's numbers."""
    journal = Journal()
    JournalHandler(journal.send).emit(record(level, "x"))
    assert journal.lines[0]["PRIORITY"] == priority


def test_a_bug_comes_with_its_traceback() -> None:
    """exc_info follows the sentence."""
    journal = Journal()
    try:
        {}["port"]
    except KeyError:
        bug = record(logging.ERROR, "a bug", exc_info=sys.exc_info())
    JournalHandler(journal.send).emit(bug)
    message = journal.lines[0]["MESSAGE"]
    assert message.startswith("a bug\nTraceback")
    assert message.endswith("KeyError: 'port'")


def test_without_a_journal_the_author_lives_on(capsys: pytest.CaptureFixture[str]) -> None:
    """journald being away loses the line, and prints no arguments anywhere."""

    def send(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    JournalHandler(send).emit(record(logging.INFO, "%s", "s3cret"))
    assert capsys.readouterr() == ("", "")


def test_each_line_on_stderr_has_its_priority(capsys: pytest.CaptureFixture[str]) -> None:
    """sd-daemon's prefix counts per line; a terminal gets none."""
    StderrHandler(prefixed=True).emit(record(logging.WARNING, "one\ntwo"))
    StderrHandler(prefixed=False).emit(record(logging.WARNING, "three"))
    assert capsys.readouterr().err == "<4>one\n<4>two\nthree\n"


def test_each_event_has_its_id_and_its_entry_in_the_catalog() -> None:
    """Whatever is told as an event has a fixed MESSAGE_ID that `journalctl -x` explains."""
    source = "".join(path.read_text() for path in (PROJECT / "agent").rglob("*.py"))
    event = r'(?:"VMOOR_EVENT": |\bevent = )f?"([^"]+)"(?: if .* else "(.+)")?'
    found = re.findall(event, source)
    told = {name for pair in found for name in pair if name}
    told.remove("service.{verdict.health.value}")
    told.update(f"service.{state.value}" for state in Health)
    assert told == set(MESSAGE_IDS)
    catalog = (PROJECT / "packaging/catalog/vmoor.catalog").read_text()
    assert re.findall(r"^-- ([0-9a-f]{32})$", catalog, re.MULTILINE) == list(MESSAGE_IDS.values())


def test_an_event_is_sent_with_its_id() -> None:
    """MESSAGE_ID goes along, for `journalctl MESSAGE_ID=`; other lines have none."""
    journal = Journal()
    JournalHandler(journal.send).emit(record(logging.INFO, "x", VMOOR_EVENT="moored"))
    JournalHandler(journal.send).emit(record(logging.INFO, "x"))
    assert journal.lines[0]["MESSAGE_ID"] == MESSAGE_IDS["moored"]
    assert "MESSAGE_ID" not in journal.lines[1]
