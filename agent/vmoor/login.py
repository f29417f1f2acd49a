"""The first part of mooring: the credentials. Part of the composition root.

A module of its own, so that the libraries of all other parts load while Vault answers.
"""

from __future__ import annotations

import random

from vmoor.adapters.vault import HvacVault
from vmoor.assembly import Parts
from vmoor.controllers.identity import Identity
from vmoor.runtime.bell import Bell
from vmoor.runtime.loop import Loop


class Login:
    """Waits for a configuration, like the others; they are made once there is one."""

    def __init__(self, parts: Parts) -> None:
        self.bell = Bell()
        self.identity = Identity(
            settings=parts.settings, credentials=parts.credentials, state=parts.identity,
            bell=self.bell, connect=lambda vault: HvacVault(vault, parts.clock),
            files=parts.files, clock=parts.clock, random=random.random,
        )  # fmt: skip
        self.loop = Loop(
            "identity", self.identity.reconcile, self.bell, parts.clock,
            refused=self.identity.refuse, distrusted=self.identity.recheck_facts,
        )  # fmt: skip
        parts.settings.rings(self.bell)
