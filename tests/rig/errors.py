"""What the rig raises: the rig, not vmoor, is at fault, so no test catches these."""

from __future__ import annotations


class RigError(Exception):
    """A part of the rig failed; the message ends with the tail of its log."""


class RigUnavailable(RigError):
    """This machine can't run the rig; the message is one line and names what is missing."""
