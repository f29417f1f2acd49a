from __future__ import annotations

import pytest
from vmoor.model.health import Health

from tests.unit.health.world import WEB, World


@pytest.fixture
def serving() -> World:
    """web.service runs, listens and is healthy."""
    world = World(WEB)
    world.units.start("web.service")
    world.prober.ports.add(8080)
    world.look()
    assert world.health() is Health.HEALTHY
    return world
