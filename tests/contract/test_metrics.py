"""What answers Prometheus, over real sockets, read by the library's own parser."""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from vmoor.adapters import exposition, metrics
from vmoor.adapters.clock import SystemClock
from vmoor.controllers.metrics import Metrics
from vmoor.errors import LocalFault
from vmoor.model.metrics import Family
from vmoor.runtime.bell import Bell
from vmoor.runtime.loop import Loop

TOLD = [
    Family("vmoor_state", "Words.", [({"state": "moored"}, True), ({"state": 'a"b'}, False)]),
    Family("vmoor_fleet_removals", "Words.", [({}, 3)], counter=True),
    Family("vmoor_service_held", "None of them.", []),
]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def served(where: str, told: Any = lambda: TOLD) -> Iterator[None]:
    """By the agent's own loop, in its thread."""
    wanted = [where]
    controller = Metrics(lambda: wanted[0], lambda at: metrics.listen(at, told))
    loop = Loop("metrics", controller.reconcile, Bell(controller.changed), SystemClock())
    assert loop.turn() == 0
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        wanted[0] = ""
        loop.stop()
        thread.join(5)
        assert not thread.is_alive()
        controller.reconcile()


def scrape(where: str) -> dict[str, float]:
    with urlopen(f"http://{where}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_scrape(host: str) -> None:
    """Gauges, counters, labels; a family without samples is none."""
    where = f"{host}:{free_port()}"
    with served(where):
        for _ in range(2):
            assert scrape(where) == {
                "vmoor_state moored": 1,
                'vmoor_state a"b': 0,
                "vmoor_fleet_removals_total": 3,
            }
    with pytest.raises(OSError, match="refused"):
        scrape(where)


def test_a_port_in_use() -> None:
    """The condition names the address, and how to find who has it."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(LocalFault, match=f"on 127.0.0.1:{port}: address already in use") as e:
            metrics.listen(f"127.0.0.1:{port}", lambda: TOLD)
    assert e.value.remedy == f"ss -ltnp 'sport = :{port}' shows who has it"


def test_an_address_that_this_machine_has_not() -> None:
    """Told, and tried again by the loop."""
    with pytest.raises(LocalFault, match=r"on 192\.0\.2\.1:9478: cannot assign requested address"):
        metrics.listen("192.0.2.1:9478", lambda: TOLD)


def test_who_dawdles_keeps_others_waiting_for_the_deadline_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that says nothing, and one that drips, are cut off; the next is answered."""
    monkeypatch.setattr(exposition, "TIME_S", 0.5)
    where = f"127.0.0.1:{free_port()}"
    address = ("127.0.0.1", int(where.rpartition(":")[2]))
    with served(where), socket.create_connection(address), socket.create_connection(address) as b:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for letter in b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100:
                b.sendall(bytes([letter]))
                time.sleep(0.03)
        assert scrape(where)
        assert time.monotonic() - began < 3 * 0.5 + 0.03 * 100 + 1


def test_noise_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """Garbage, a head without end, a client that goes away: refused without a word in the log."""
    where = f"127.0.0.1:{free_port()}"
    address = ("127.0.0.1", int(where.rpartition(":")[2]))
    with served(where):
        for noise in (b"\x16\x03\x01\0\xff\n\n", b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 17), b""):
            with socket.create_connection(address) as sock, contextlib.suppress(OSError):
                sock.sendall(noise)
        assert scrape(where)
    assert not caplog.records


def test_a_bug_in_a_scrape_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """That scrape fails; it is logged, and the next one is answered."""
    told = [TOLD, None]
    where = f"127.0.0.1:{free_port()}"
    with served(where, told.pop):
        with pytest.raises(OSError, match="closed connection"):
            scrape(where)
        assert scrape(where)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The condition says what to install."""
    monkeypatch.delitem(sys.modules, "vmoor.adapters.exposition", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(LocalFault, match="needs the package python3-prometheus-client") as e:
        metrics.listen("127.0.0.1:9478", lambda: TOLD)
    assert e.value.remedy == "apt install python3-prometheus-client"


def test_the_library_is_loaded_where_metrics_are_served_only() -> None:
    """Neither the agent nor the reaper has it, or a thread of its own, without a word of it."""
    code = """
import sys, threading, vmoor.daemon, vmoor.mooring, vmoor.reaper.daemon
print(sorted({'prometheus_client', 'http.server', 'socketserver'} & set(sys.modules)))
from vmoor.assembly import Parts
from vmoor.config.build import settings_from
parts = Parts(lambda: None)
document = {
    'vault': {'address': 'http://127.0.0.1:1', 'auth': {'method': 'approle', 'role_id': 'x'}},
    'mesh': 'secret/a', 'workload': {'namespace': 'n', 'name': 'w', 'service_account': 's'},
}
parts._taken(settings_from(document))
print([loop.name for loop in parts._shown(None)], threading.active_count())
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, timeout=30
    )
    assert ran.stdout == b"[]\n[] 1\n"
