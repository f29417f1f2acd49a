"""What discovery found on this VM."""

from __future__ import annotations

from dataclasses import dataclass

from vmoor.model.service import Service


@dataclass(frozen=True)
class Discovered:
    services: tuple[Service, ...] = ()
    address: str = ""  # "" = not known yet: the facts are not here
    locality: str = ""  # region/zone/subzone
