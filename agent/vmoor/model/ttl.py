"""What an application says of itself, and for how long that counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from vmoor.errors import quoted
from vmoor.model.health import Probe

SIZE_LIMIT = 1024  # bytes of one message; what is beyond is cut off
STATES = ("pass", "warn", "fail")
SILENT, FAILS = "NothingHeard", "SaidFail"


@dataclass(frozen=True)
class Heard:
    """What was said last of one service; `said` "" = nothing since the agent's start.

    Times are Clock.now() seconds. That the same is said again in time is no news.
    """

    said: str = ""
    words: str = ""
    at: float = field(default=0.0, compare=False)
    since: float = 0.0  # the beginning of an unbroken row of messages
    trouble: str = ""  # why something may not be heard


def parsed(message: bytes) -> Optional[tuple[str, str]]:
    """State and words of one message, `fail disk is full`; None for what is none."""
    said, *words = message.decode("utf-8", "replace").split(maxsplit=1) or [""]
    return (said, quoted("".join(words))) if said in STATES else None


def heard_again(old: Heard, said: str, words: str, now: float, ttl: float) -> Heard:
    """After one more message.

    One that comes late begins a new row, and that is news: the one before may have run out.
    Late is half of the ttl, so that a reader who is just judging cannot miss it.
    """
    in_time = old.said and now - old.at < ttl / 2
    return Heard(said, words, now, old.since if in_time else now, old.trouble)


def probe(heard: Heard, ttl: float, *, expired: bool) -> Optional[Probe]:
    """None = not known yet. `expired`: the last message, or the wait for one, is `ttl` old."""
    if expired:
        words = f"nothing heard for {ttl:g}s{_because(heard)}"
        return Probe(passed=False, words=words, reason=SILENT)
    words = heard.words or f"said {heard.said}"
    if heard.said == "fail":
        return Probe(passed=False, words=words, reason=FAILS)
    if heard.said == "warn":
        return Probe(passed=False, words=words, reason=FAILS, critical=False)
    return Probe(passed=True, words=words) if heard.said else None


def waiting(heard: Heard) -> str:
    return f"nothing heard yet{_because(heard)}"


def _because(heard: Heard) -> str:
    return f": {heard.trouble}" if heard.trouble else ""
