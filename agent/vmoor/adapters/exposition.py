"""Answers Prometheus. Imported where metrics are served: prometheus_client is optional.

One scrape after the other in the thread that serves, each within TIME_S whatever the client does.
The library's own server has a thread for each connection, as many as anybody opens, and no limit
of time.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import socketserver
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from vmoor.adapters import looks, timed
from vmoor.model.metrics import Family

log = logging.getLogger(__name__)

TIME_S = 5.0  # for a request and its answer


class Exposition(socketserver.TCPServer):
    """Raises OSError when it cannot listen."""

    allow_reuse_address = True  # or an agent's restart would find the port of the last one busy

    def __init__(self, host: str, port: int, collect: Callable[[], Iterable[Family]]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        registry = CollectorRegistry()
        registry.register(_Collector(collect))  # type: ignore[arg-type,unused-ignore]
        super().__init__((host, port), _Handler.factory(registry))

    def serve(self) -> None:
        """Waits for a client, or for `interrupt`."""
        self.handle_request()

    def interrupt(self) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.server_close()

    def handle_error(self, *_: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # that one is the client's: it went away, or dawdled
            log.error("A scrape failed: this is a bug in vmoor", exc_info=error)


class _Handler(MetricsHandler):
    def setup(self) -> None:
        super().setup()
        until = time.monotonic() + TIME_S
        self.rfile = io.BufferedReader(
            timed.PacedReads(self.connection, lambda: looks.left(until))
        )


class _Collector:
    def __init__(self, collect: Callable[[], Iterable[Family]]) -> None:
        self._collect = collect

    def describe(self) -> list[Metric]:
        """Nothing; without it the library would collect once to find out."""
        return []

    def collect(self) -> Iterator[Metric]:
        for family in self._collect():
            kind: Any = CounterMetricFamily if family.counter else GaugeMetricFamily
            names = list(family.samples[0][0]) if family.samples else []
            metric = kind(family.name, family.words, labels=names)
            for labels, value in family.samples:
                metric.add_metric(list(labels.values()), float(value))
            yield metric
