"""What can go wrong, sorted by what to do about it.

    VmoorError
      Unavailable       the world is away: network, 5xx, 429, sealed, timeout -> back off
        Untrusted       its certificate is signed by an unknown CA -> look for a newer CA
      Unauthenticated   our credential was refused -> drop that very credential, fetch anew
      Forbidden         who we are is fine, the right is missing -> say which right
      Conflict          someone wrote first, or owns it -> read again, judge anew
      Rejected          the same bytes will fail again -> wait until an input changes
      LocalFault        this machine refused: file, command, unit -> back off
      Misconfigured     the operator's text is wrong -> keep the accepted one, tell every problem

Adapters translate what libraries raise into these and never let a library's error out, so a
library can be replaced, and no header or body of a request ends in a traceback. `runtime.loop`
is the one place that decides what follows. Anything else that is raised is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

EXIT_OK = 0
EXIT_NOT_FINE = 1
EXIT_USAGE = 2
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h

# What is quoted of a peer's answer; enough for a sentence, too little for a body full of secrets.
QUOTE_LIMIT = 256


class VmoorError(Exception):
    """An expected failure: a sentence that starts with "cannot", and what a person can do."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class Unavailable(VmoorError):
    """The peer is away or overloaded; `retry_after` is its own wish in seconds, if it told one."""

    def __init__(
        self, message: str, *, remedy: str = "", retry_after: Optional[float] = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class Untrusted(Unavailable):
    """Its certificate does not match the CA that we know; there may be a newer one."""


class Unauthenticated(VmoorError):
    """A credential was refused; `generation` names exactly the one that was used."""

    def __init__(self, message: str, *, generation: int, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.generation = generation


class Forbidden(VmoorError):
    """The right is missing; the remedy names the right and who grants it."""


class Conflict(VmoorError):
    """Somebody else wrote first."""


class Rejected(VmoorError):
    """The same request will be refused again. `security` marks what an operator must see."""

    def __init__(self, message: str, *, remedy: str = "", security: bool = False) -> None:
        super().__init__(message, remedy=remedy)
        self.security = security


class LocalFault(VmoorError):
    """This machine refused: a file, a command, a unit."""


class Misconfigured(VmoorError):
    """Every problem of the configuration, each a line "file:line: what, remedy"."""

    def __init__(self, problems: Sequence[str], *, remedy: str = "") -> None:
        super().__init__("; ".join(problems), remedy=remedy)
        self.problems = tuple(problems)


def quoted(text: object) -> str:
    """Outside text made fit for a message: one line, printable, at most QUOTE_LIMIT long."""
    line = " ".join(str(text).split())
    safe = "".join(c if c.isprintable() else "?" for c in line)
    return safe if len(safe) <= QUOTE_LIMIT else safe[: QUOTE_LIMIT - 1] + "…"
