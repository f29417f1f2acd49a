"""The prober on real sockets of this machine: every look ends in time and in words."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable

import pytest
from vmoor.adapters import listeners
from vmoor.adapters.probes import Probes
from vmoor.adapters.sweep import AT_ONCE
from vmoor.model.health import Probe
from vmoor.model.service import FileProbe, HttpProbe, TcpProbe
from vmoor.runtime.pool import Pool

from tests.contract.probing import look

TIMEOUT = 0.5
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def server(
    answer: Callable[[socket.socket], object],
    host: str = "127.0.0.1",
    wrap: Callable[[socket.socket], socket.socket] = lambda taken: taken,
) -> Iterator[int]:
    """Takes one connection, reads a request, and answers as told; gives its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        listener.settimeout(5)

        def serve() -> None:
            with suppress(OSError):
                taken, _ = listener.accept()
                taken.settimeout(5)
                with wrap(taken) as link:
                    link.recv(65536)
                    answer(link)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()


def get(answer: Callable[[socket.socket], object]) -> tuple[Probe, float]:
    with server(answer) as port:
        began = time.monotonic()
        return look(HttpProbe("/", port), TIMEOUT), time.monotonic() - began


def text(answer: bytes) -> Callable[[socket.socket], object]:
    return lambda taken: taken.sendall(answer)


def drip(first: bytes) -> Callable[[socket.socket], object]:
    """Sends `first`, then a byte each 50 ms for ever."""

    def answer(taken: socket.socket) -> None:
        taken.sendall(first)
        while True:
            time.sleep(0.05)
            taken.sendall(b"x")

    return answer


def flood(taken: socket.socket) -> None:
    """A body of 2 GB."""
    taken.sendall(OK + b"Content-Length: 2147483648\r\n\r\n")
    while True:
        taken.sendall(b"x" * 65536)


def headers_for_ever(taken: socket.socket) -> None:
    taken.sendall(OK)
    while True:
        taken.sendall(b"X: y\r\n" * 1000)


def silence(taken: socket.socket) -> None:
    taken.recv(1)


@pytest.mark.parametrize(
    ("answer", "passed", "words"),
    [
        (text(OK + b"Content-Length: 2\r\n\r\nok"), True, "200 in "),
        (text(b"HTTP/1.0 204 No\r\n\r\n"), True, "204 in "),
        (text(OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n"), True, "200 in "),
        (text(b"HTTP/1.1 302 F\r\nLocation: http://192.0.2.1/\r\n\r\n"), True, "302 in "),
        (text(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), False, "503, want 200-399"),
        (text(b"SSH-2.0-OpenSSH_9.2\r\n"), False, "not HTTP: SSH-2.0-OpenSSH_9.2"),
        (text(b"\x00\x1b[31m\n"), False, "not HTTP: ??[31m"),
        (text(b""), False, "it closed the connection without an answer"),
        (text(OK), False, "it closed the connection amid its headers"),
        (text(OK + b"Content-Length: 9\r\n\r\nok"), False, "it closed the connection amid its"),
        (text(OK + CHUNKED + b"z\r\n"), False, "not HTTP: a chunk of z"),
        (text(OK + CHUNKED + b"2\r\nok\r\n"), False, "it closed the connection amid its"),
        (text(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500\r\n\r\n"), False, "500, want"),
        (text(b"HTTP/1.1 200\nX: bare line feeds\n\n"), True, "200 in "),
        (flood, True, "200 in "),
        (headers_for_ever, False, "its headers have no end in 64 KiB"),
    ],
    ids=range(16),
)
def test_what_servers_answer(
    answer: Callable[[socket.socket], object], passed: bool, words: str
) -> None:
    """Any status in the range passes, redirects are not followed, the rest is told and quoted."""
    probe, took = get(answer)
    assert (probe.passed, probe.words[: len(words)]) == (passed, words)
    assert took < TIMEOUT


@pytest.mark.parametrize(
    "answer",
    [silence, drip(b""), drip(OK + b"X: "), drip(OK + b"Content-Length: 999\r\n\r\n")],
    ids=["silent", "status", "headers", "body"],
)
def test_the_deadline_is_for_the_whole(answer: Callable[[socket.socket], object]) -> None:
    """A server that sends a byte now and then gets no more time than a silent one."""
    probe, took = get(answer)
    assert probe == Probe(passed=False, words="timed out after 0.5s")
    assert TIMEOUT <= took < TIMEOUT + 0.2


def test_what_is_sent() -> None:
    """The path and the headers asked for, Host replaced by the configured one."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            taken, _ = listener.accept()
            with taken:
                seen.append(taken.recv(65536))
                taken.sendall(OK + b"\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        probe = HttpProbe("/a?b=c", listener.getsockname()[1], headers={"host": "web", "X-Y": "1"})
        assert look(probe, TIMEOUT).passed
        thread.join()
    assert seen[0].split(b"\r\n") == [
        b"GET /a?b=c HTTP/1.1", b"User-Agent: vmoor", b"Connection: close", b"host: web",
        b"X-Y: 1", b"", b"",
    ]  # fmt: skip


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """http_proxy is for others."""
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    probe, _ = get(text(OK + b"\r\n"))
    assert probe.passed


def test_nobody_listens() -> None:
    """Refused, by either probe."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        refused = Probe(passed=False, words="connection refused")
        assert look(HttpProbe("/", port), TIMEOUT) == refused
        assert look(TcpProbe(port), TIMEOUT) == refused


def test_names_are_not_resolved() -> None:
    """A resolver would not end in time."""
    probe = look(TcpProbe(80, host="web.example"), TIMEOUT)
    assert (probe.passed, "web.example" in probe.words) == (False, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_tcp_connects(host: str) -> None:
    """By address of either family."""
    with server(silence, host.replace("localhost", "127.0.0.1")) as port:
        probe = look(TcpProbe(port, host), TIMEOUT)
    assert probe.words.startswith("connected in ")


def test_listening_ports_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listening sockets only, and the same from the kernel's answer as from /proc."""
    with socket.create_server(("127.0.0.1", 0)) as four, socket.socket(socket.AF_INET6) as six:
        six.bind(("::1", 0))
        port4, port6 = four.getsockname()[1], six.getsockname()[1]
        assert (port4 in listeners.ports(), port6 in listeners.ports()) == (True, False)
        six.listen()
        with socket.create_connection(("127.0.0.1", port4)) as client:
            listening = listeners.ports()
            assert {port4, port6} <= listening
            assert client.getsockname()[1] not in listening
        monkeypatch.setattr(listeners, "_NETLINK_SOCK_DIAG", 99)
        assert {port4, port6} <= listeners.ports()


@pytest.mark.parametrize("way", ["netlink", "/proc"])
def test_unix_sockets_are_no_listeners(way: str) -> None:
    """In a network of its own, where nothing else could be told."""
    program = (
        "import socket; from vmoor.adapters import listeners\n"
        f"listeners._NETLINK_SOCK_DIAG = {4 if way == 'netlink' else 99}\n"
        "with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:\n"
        "    one.bind(chr(0) + 'vmoor-listener'); one.listen()\n"
        "    other.bind(''); other.listen()\n"
        "    print(sorted(listeners.ports()))\n"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("way", ["netlink", "/proc"])
@pytest.mark.parametrize(
    ("family", "address", "hidden"),
    [
        (socket.AF_INET, "127.0.0.1", True),
        (socket.AF_INET, "127.1.2.3", True),
        (socket.AF_INET, "0.0.0.0", False),
        (socket.AF_INET6, "::1", True),
        (socket.AF_INET6, "::ffff:127.0.0.1", True),
        (socket.AF_INET6, "::", False),
    ],
)
def test_listeners_on_loopback_only_are_told(
    monkeypatch: pytest.MonkeyPatch, way: str, family: int, address: str, hidden: bool
) -> None:
    """Exactly those that no other machine can reach."""
    if way == "/proc":
        monkeypatch.setattr(listeners, "_NETLINK_SOCK_DIAG", 99)
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        look = listeners.look()
        assert port in look.ports
        assert (port in look.hidden) is hidden


@pytest.mark.parametrize(("content", "passed"), [(b"all is ready", True), (b"starting", False)])
def test_the_answer_must_contain_the_text(content: bytes, passed: bool) -> None:
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(content) + content
    with server(text(answer)) as port:
        probe = look(HttpProbe("/", port, body="ready"), TIMEOUT)
    assert probe.passed is passed
    if not passed:
        assert probe.words == "200, but no 'ready' in the answer"


def test_head_waits_for_no_body() -> None:
    asked: list[bytes] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            taken, _ = listener.accept()
            with taken:
                asked.append(taken.recv(65536))
                taken.sendall(OK + b"Content-Length: 9\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        probe = look(HttpProbe("/", port, method="HEAD"), TIMEOUT)
        thread.join(10)
    assert probe.passed
    assert asked[0].startswith(b"HEAD / HTTP/1.1")


def test_a_file_must_be_there_and_young(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    probe = FileProbe(str(path), max_age=60.0)
    assert look(probe, TIMEOUT) == Probe(passed=False, words=f"{path}: no such file or directory")
    path.touch()
    assert look(probe, TIMEOUT) == Probe(passed=True, words=f"{path} exists")
    os.utime(path, (time.time() + 9999,) * 2)
    assert look(probe, TIMEOUT).passed, "a time in the future is young"
    os.utime(path, (time.time() - 100,) * 2)
    assert "ago, want 60s at most" in look(probe, TIMEOUT).words
    assert look(FileProbe(str(path)), TIMEOUT).passed, "without max_age any is"
    folder = look(FileProbe(str(tmp_path)), TIMEOUT)
    assert folder == Probe(passed=False, words=f"{tmp_path} is not a regular file")


def test_one_that_hangs_holds_up_nobody() -> None:
    """All plain looks share a thread, and more of them come than are looked at at once."""
    rung = threading.Semaphore(0)
    probes: Probes[int] = Probes(rung.release)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as deaf, server(silence) as port:
        deaf_port = deaf.getsockname()[1]
        began = time.monotonic()
        for n in range(2 * AT_ONCE):
            probes.submit(n, HttpProbe("/", deaf_port), TIMEOUT, quiet=lambda _: False)
            probes.submit(-n, TcpProbe(port), TIMEOUT, quiet=lambda _: False)
        for _ in range(4 * AT_ONCE):
            assert rung.acquire(timeout=5)
        took = time.monotonic() - began
        done = probes.take()
    hung = [d for d in done if d.result == Probe(passed=False, words="timed out after 0.5s")]
    assert (len(done), len(hung)) == (4 * AT_ONCE, 2 * AT_ONCE)
    assert 2 * TIMEOUT <= took < 2 * TIMEOUT + 0.5


def test_a_long_request_goes_out_whole() -> None:
    """More than the socket's buffer takes at once."""
    seen: list[int] = []

    def answer(taken: socket.socket) -> None:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            time.sleep(0.001)
            got = (got + taken.recv(65536))[-8:]
        seen.append(1)
        taken.sendall(OK + b"\r\n")

    with server(answer) as port:
        headers = {f"X-{n}": "y" * 60000 for n in range(100)}
        assert look(HttpProbe("/", port, headers=headers), 5.0).passed
    assert seen


def test_calls_that_hang_take_nobody_s_thread() -> None:
    """As many as there are threads, given up: the next one is looked at."""
    hang, rung = threading.Event(), threading.Event()
    pool: Pool[int, bool] = Pool(2, rung.set, "test")
    try:
        tickets = [pool.submit(n, hang.wait, quiet=lambda _: True) for n in range(2)]
        last = pool.submit(3, lambda: True, quiet=lambda _: False)
        while not all(ticket.begun for ticket in tickets):
            time.sleep(0.001)
        assert not last.begun
        for ticket in tickets:
            pool.give_up(ticket)
        assert rung.wait(5)
        assert [done.key for done in pool.take()] == [3]
    finally:
        hang.set()


def test_a_bug_in_the_thread_of_plain_looks_is_told() -> None:
    """Silence would look like services that do not answer."""
    rung = threading.Event()
    probes: Probes[str] = Probes(rung.set)
    probes.submit("one", TcpProbe(1 << 20), TIMEOUT, quiet=lambda _: False)
    assert rung.wait(5)
    with pytest.raises(RuntimeError, match="the thread of the plain looks has ended"):
        probes.take()
