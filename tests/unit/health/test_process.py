"""What a pid file means, and what the health loop makes of it."""

from __future__ import annotations

import pytest
from vmoor.controllers import health
from vmoor.model import process
from vmoor.model.health import Health, Probe
from vmoor.model.process import ProcessState

from tests.unit.health.world import DB, PID_FILE, World


@pytest.mark.parametrize(
    ("content", "pid"),
    [
        (b"1", 1),
        (b" 4194304\n", 4194304),
        (b"12" + b"\n" * 30, 12),
        (b"12" + b"\n" * 31, None),
        (b"4194305", None),
        (b"0", None),
        (b"", None),
        (b"-1", None),
        (b"0x1f", None),
        (b"12 13", None),
        (b"12\n13", None),
        (b"1\0", None),
        ("\u0661".encode(), None),
    ],
)
def test_a_pid_is_one_decimal_number(content: bytes, pid: int) -> None:
    """At most 32 bytes, at most Linux's highest pid, nothing but white space around it."""
    assert process.pid_in(content) == pid


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ProcessState(12), "/run/db.pid: pid 12 is dead"),
        (ProcessState(words="is not one pid"), "/run/db.pid: is not one pid"),
    ],
)
def test_why_it_fails(state: ProcessState, words: str) -> None:
    """The words name the file and what is wrong with it or its process."""
    assert process.probe(PID_FILE, state, 0) == Probe(
        passed=False, words=words, reason="ProcessDead"
    )


@pytest.fixture
def serving() -> World:
    world = World(DB)
    world.processes.set({PID_FILE: ProcessState(12, alive=True)})
    assert world.look() == health.CALM_S
    assert (world.health("db"), world.words("db")) == (Health.HEALTHY, "pid 12 lives")
    return world


def test_a_file_not_read_yet_is_unknown() -> None:
    """Neither healthy nor dead: after a start of the agent the mesh keeps what it had."""
    world = World(DB)
    assert world.look() == health.CALM_S
    assert world.health("db") is Health.UNKNOWN


def test_a_dead_process_is_out_in_the_next_pass(serving: World) -> None:
    """Whatever the threshold: the check has that of one that is looked at."""
    serving.processes.set({PID_FILE: ProcessState(12)})
    assert serving.look() == health.CALM_S
    assert serving.health("db") is Health.UNHEALTHY
    assert serving.verdicts.get()["db"].reason == "ProcessDead"
    serving.processes.set({PID_FILE: ProcessState(13, alive=True)})
    serving.look()
    assert serving.words("db") == "pid 13 lives"


def test_a_death_between_two_looks_is_seen(serving: World) -> None:
    """A process in the place of the one that was healthy is out once, then as it is."""
    serving.processes.set({PID_FILE: ProcessState(13, alive=True)})
    assert serving.look() == pytest.approx(0.05)
    assert serving.words("db") == "/run/db.pid: pid 12 was replaced by pid 13"
    serving.look()
    assert serving.health("db") is Health.UNHEALTHY, "a ring in vain is no look"
    assert serving.look(0.05) == health.CALM_S
    assert serving.words("db") == "pid 13 lives"
