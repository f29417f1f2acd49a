"""Takes this VM out of the mesh, and finishes what an interrupted leave began."""

from vmoor.controllers.leaving.controller import MARK, Leaving, unfinished

__all__ = ["MARK", "Leaving", "unfinished"]
