"""Looks at every service and says whether it may be in the mesh."""

from vmoor.controllers.health.controller import CALM_S, Health
from vmoor.controllers.health.track import Track

__all__ = ["CALM_S", "Health", "Track"]
