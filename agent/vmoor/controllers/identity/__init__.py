"""Who we are."""

from vmoor.controllers.identity.controller import Identity

__all__ = ["Identity"]
