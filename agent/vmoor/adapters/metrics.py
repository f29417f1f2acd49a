"""Opens the address for Prometheus. The library that answers there is optional."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vmoor.config.listen import listen_at
from vmoor.errors import LocalFault
from vmoor.model.metrics import Family

if TYPE_CHECKING:
    from vmoor.adapters.exposition import Exposition

PACKAGE = "python3-prometheus-client"


def listen(where: str, collect: Callable[[], Iterable[Family]]) -> Exposition:
    """`collect` is called for each scrape, in the thread that serves. Raises LocalFault."""
    try:
        from vmoor.adapters.exposition import Exposition  # noqa: PLC0415 - as few as need it
    except ImportError:
        raise LocalFault(
            f"cannot serve metrics: needs the package {PACKAGE}", remedy=f"apt install {PACKAGE}"
        ) from None
    host, port = listen_at(where)
    try:
        return Exposition(host, port, collect)
    except OSError as e:
        remedy = "choose another address or port"
        if e.errno == errno.EADDRINUSE:
            remedy = f"ss -ltnp 'sport = :{port}' shows who has it"
        words = (e.strerror or str(e)).lower()
        raise LocalFault(f"cannot serve metrics on {where}: {words}", remedy=remedy) from None
