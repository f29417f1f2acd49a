"""An Envoy that forgets an endpoint some looks after it was asked for the first time."""

from __future__ import annotations

from typing import Optional


class FakeEnvoy:
    def __init__(self, looks: Optional[int] = 0) -> None:
        self.looks = looks  # how often it still knows; None = it cannot be asked
        self.asked: list[str] = []

    def knows(self, endpoint: str) -> Optional[bool]:
        self.asked.append(endpoint)
        if self.looks is None:
            return None
        self.looks -= 1
        return self.looks >= 0
