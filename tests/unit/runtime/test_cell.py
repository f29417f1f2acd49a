from __future__ import annotations

from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell


def test_change_rings_the_readers() -> None:
    """Who reads a fact is woken when it changes."""
    bell, cell = Bell(), Cell(1)
    cell.rings(bell)
    cell.set(2)
    assert bell.wait(0)


def test_equal_value_rings_nobody() -> None:
    """Saying the same again is no news: no work while nothing changes."""
    bell, cell = Bell(), Cell((1, 2))
    cell.rings(bell)
    cell.set((1, 2))
    assert not bell.wait(0)


def test_who_waits_for_something_else_is_told_of_the_new_value() -> None:
    """So that it can end that: what it compares with is set already."""
    seen: list[int] = []
    cell = Cell(1)
    bell = Bell(lambda: seen.append(cell.get()))
    cell.rings(bell)
    cell.set(2)
    assert (seen, bell.wait(0)) == ([2], True)
