"""The Consul source against a real agent, and against servers that are none."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from vmoor import errors
from vmoor.adapters import consul as adapter
from vmoor.adapters.clock import SystemClock
from vmoor.adapters.consul import ConsulAgent
from vmoor.adapters.files import LocalFiles
from vmoor.config.settings import (
    AppRole,
    ConsulSource,
    MeshSource,
    Settings,
    Sources,
    VaultSettings,
)
from vmoor.controllers.catalog import Catalog
from vmoor.model.discovered import Found
from vmoor.model.service import Workload
from vmoor.runtime.bell import Bell
from vmoor.runtime.cell import Cell
from vmoor.runtime.loop import Loop

from tests.fakes.files import FakeFiles
from tests.rig.consul import LocalAgent
from tests.rig.process import wait_until

AT_ONCE = 0.5  # seconds
TTL = {"CheckID": "web-ttl", "Name": "alive", "TTL": "600s", "Status": "passing"}
TOKEN = "0b4d6a9e-0000-4000-8000-000000000001"


def settings(source: Optional[ConsulSource]) -> Settings:
    return Settings(
        vault=VaultSettings(("https://vault:8200",), AppRole("web")),
        mesh=MeshSource("secret", "mesh"),
        workload=Workload("shop", "web", "web"),
        sources=Sources(consul=source),
    )


class Source:
    """The whole source: adapter, controller and its loop in a thread."""

    def __init__(self, source: ConsulSource) -> None:
        self.cell = Cell(Found())
        self.consul = ConsulAgent(LocalFiles())
        self.settings = Cell(settings(source))
        controller = Catalog(
            settings=self.settings,
            found=self.cell,
            connect=self._connect,
            files=FakeFiles(),
        )
        bell = Bell(controller.reloaded)
        self.settings.rings(bell)
        self.loop = Loop(
            "consul", controller.reconcile, bell, SystemClock(), detached=True, longest=lambda: 1.0
        )
        self._thread = threading.Thread(target=self.loop.run, daemon=True)

    def _connect(self) -> ConsulAgent:
        self.consul.close()
        self.consul = ConsulAgent(LocalFiles())
        return self.consul

    def start(self) -> Source:
        self._thread.start()
        return self

    def join(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive()
        self.consul.close()

    @property
    def found(self) -> Found:
        return self.cell.get()

    @property
    def names(self) -> list[str]:
        return [service.name for service in self.found.services]

    def sees(self, what: Callable[[], object], timeout: float = AT_ONCE) -> None:
        """By then; the waiting itself polls each 5 ms."""
        wait_until(what, timeout, f"{self.found} {self.loop.outcome.get()}", period=0.005)

    def passed(self, name: str = "web") -> Optional[bool]:
        told = self.found.told.get(name)
        return None if told is None else told.passed


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAgent]:
    with LocalAgent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest.fixture
def source(agent: LocalAgent) -> Iterator[Source]:
    """It sees an agent without services; the test's own are gone after it."""
    source = Source(ConsulSource(agent.url)).start()
    source.sees(lambda: source.loop.outcome.get().state == "ok", 5)
    yield source
    source.loop.stop()
    declare(agent, Name="end")  # or its query would wait on
    source.join()
    for id_ in agent.ask("GET", "/v1/agent/services").json():
        agent.put(f"/v1/agent/service/deregister/{id_}")


def declare(agent: LocalAgent, **more: Any) -> None:
    web = {"Name": "web", "Port": 8080, "Tags": ["vmoor"], **more}
    agent.put("/v1/agent/service/register?replace-existing-checks=true", web)


def test_a_service_comes_changes_and_goes(agent: LocalAgent, source: Source) -> None:
    """Without any check: registration, tags and deregistration are each seen at once."""
    declare(agent)
    source.sees(lambda: source.names == ["web"])
    assert source.found.told["web"].words == "consul: passing"
    labelled = ["vmoor", "vmoor.label.version=v2"]
    declare(agent, Tags=labelled, Weights={"Passing": 7, "Warning": 1})
    source.sees(lambda: source.found.services[0].labels == {"version": "v2"})
    assert source.found.services[0].weight == 7
    declare(agent, Tags=[])
    source.sees(lambda: source.names == [])
    declare(agent)
    source.sees(lambda: source.names == ["web"])
    agent.put("/v1/agent/service/deregister/web")
    source.sees(lambda: source.found == Found())


def test_a_check_flips(agent: LocalAgent, source: Source) -> None:
    """Critical, warning and passing, with what the check wrote."""
    declare(agent, Check=TTL)
    source.sees(source.passed)
    for _ in range(5):
        agent.put("/v1/agent/check/fail/web-ttl?note=disk+full")
        source.sees(lambda: source.passed() is False)
        assert source.found.told["web"].words == "consul: alive is critical: disk full"
        agent.put("/v1/agent/check/warn/web-ttl?note=hot")
        source.sees(lambda: "warning" in source.found.told["web"].words)
        assert source.passed()
        agent.put("/v1/agent/check/pass/web-ttl")
        source.sees(lambda: source.found.told["web"].words == "consul: passing")


@pytest.mark.parametrize("path", ["/v1/agent/service/maintenance/web", "/v1/agent/maintenance"])
def test_maintenance(agent: LocalAgent, source: Source, path: str) -> None:
    """Of the service or of the whole node, with the reason."""
    declare(agent)
    source.sees(source.passed)
    agent.put(f"{path}?enable=true&reason=upgrade")
    source.sees(lambda: source.passed() is False)
    told = source.found.told["web"]
    assert told.reason == "Maintenance"
    assert told.words.endswith("Maintenance Mode is critical: upgrade")
    agent.put(f"{path}?enable=false")
    source.sees(source.passed)


def test_an_agent_that_is_killed_and_comes_back(agent: LocalAgent, source: Source) -> None:
    """What it said stays meanwhile, and its checks that have not run again change nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        check = {"TCP": f"127.0.0.1:{listener.getsockname()[1]}", "Interval": "600s"}
        declare(agent, Check={**check, "Status": "passing"})
        source.sees(source.passed)
        seen: list[Optional[bool]] = []
        agent.kill()
        source.sees(lambda: source.loop.outcome.get().state == "fail", 2)
        assert "connection refused" in source.loop.outcome.get().words
        assert (source.names, source.passed()) == (["web"], True)
        agent.start()
        source.sees(
            lambda: seen.append(source.passed()) or source.loop.outcome.get().state == "ok", 5
        )
        assert source.names == ["web"]
        assert False not in seen
        assert source.passed() is not False
    agent.put("/v1/agent/service/deregister/web")
    source.sees(lambda: source.names == [], 5)


def test_without_a_server_the_agents_own_word_counts(tmp_path: Path) -> None:
    """An agent whose only server was killed: its checks are still followed, by looking."""
    for name in ("server", "client"):
        (tmp_path / name).mkdir()
    with (
        LocalAgent(tmp_path / "server") as server,
        LocalAgent(tmp_path / "client", server=server) as agent,
    ):
        source = Source(ConsulSource(agent.url)).start()
        declare(agent, Check=TTL)
        source.sees(source.passed, 5)
        server.kill()
        agent.put("/v1/agent/check/fail/web-ttl")
        # Consul looks for a server for 7 s before it gives up the query.
        source.sees(lambda: source.passed() is False, 12)
        agent.put("/v1/agent/check/pass/web-ttl")
        source.sees(source.passed, 5)
        assert "looking every 2 s: " in source.loop.outcome.get().words
        server.start()
        source.sees(lambda: "looking" not in source.loop.outcome.get().words, 20)
        agent.put("/v1/agent/check/fail/web-ttl")
        source.sees(lambda: source.passed() is False)
        source.loop.stop()
        declare(agent, Name="end")
        source.join()


def test_a_token_is_needed_and_read_anew(tmp_path: Path) -> None:
    """With ACLs on: a wrong token removes nothing, and a new one counts with the next request."""
    file = tmp_path / "token"
    with LocalAgent(tmp_path, TOKEN) as agent:
        web = {"Name": "web", "Port": 8080, "Tags": ["vmoor"]}
        agent.put("/v1/agent/service/register", web)
        file.write_text(f"{TOKEN}\n")
        source = Source(ConsulSource(agent.url, str(file)))
        source.loop.turn()
        assert source.names == ["web"]
        for wrong, words in ((TOKEN[:-1] + "2", "403 ACL not found"), ("", "missing or empty")):
            file.write_text(wrong)
            agent.put("/v1/agent/service/maintenance/web?enable=true")
            source.loop.turn()
            outcome = source.loop.outcome.get()
            assert (outcome.state, source.names) == ("fail", ["web"])
            assert words in outcome.words
            assert "token" in outcome.remedy
            assert TOKEN[:-1] not in repr(outcome)
            agent.put("/v1/agent/service/maintenance/web?enable=false")
        file.write_text(TOKEN)
        source.loop.turn()
        assert source.loop.outcome.get().state == "ok"
        assert source.passed()
        source.consul.close()


def test_a_reload_counts_at_once(agent: LocalAgent, source: Source) -> None:
    """Though a query waits for up to a minute; nothing fails by it."""
    declare(agent, Tags=["vmoor", "mesh"])
    declare(agent, Name="api", ID="api", Port=9090, Tags=["mesh"])
    source.sees(lambda: source.names == ["web"])
    outcomes: list[str] = []
    for _ in range(10):
        for tag, names in (("mesh", ["api", "web"]), ("vmoor", ["web"]), ("none", [])):
            source.settings.set(settings(ConsulSource(agent.url, require_tag=tag)))
            source.sees(lambda names=names: source.names == names)  # type: ignore[misc]
            outcomes.append(source.loop.outcome.get().state)
    source.settings.set(settings(None))
    source.sees(lambda: source.loop.outcome.get().words == "not configured")
    assert set(outcomes) == {"ok"}
    source.settings.set(settings(ConsulSource(agent.url)))
    source.sees(lambda: source.names == ["web"])


# What is no agent


def answer(body: bytes, status: str = "200 OK", index: str = "7") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nX-Consul-Index: {index}\r\n\r\n"
    return head.encode() + body


class Server:
    """Answers each path with these bytes or by this function."""

    def __init__(self) -> None:
        self.node: Any = answer(b'{"Config": {"NodeName": "here"}}')
        self.turn: Any = answer(b'{"Checks": []}')
        self.services: Any = answer(b"{}")
        self.checks: Any = answer(b"{}")
        self.asked: list[str] = []
        self.ended = threading.Event()

    def serve(self, taken: socket.socket) -> None:
        with suppress(OSError), taken:
            while request := taken.recv(65536):
                path = request.split()[1].decode()
                self.asked.append(path)
                name = path.partition("?")[0].rsplit("/", 2)
                said = {"self": self.node, "services": self.services, "checks": self.checks}.get(
                    name[2], self.turn
                )
                if callable(said):
                    said(taken)
                else:
                    taken.sendall(said)


@contextmanager
def serving(server: Server) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threads: list[threading.Thread] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    taken, _ = listener.accept()
                    threads.append(threading.Thread(target=server.serve, args=(taken,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in (accepting, *threads):
                thread.join(10)
                assert not thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    for name in ("DEADLINE_S", "FIRST_S", "BLOCKED_S"):
        monkeypatch.setattr(adapter, name, 0.5)


def endless(taken: socket.socket) -> None:
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    while True:
        taken.sendall(b" " * 65536)


def silent(taken: socket.socket) -> None:
    time.sleep(0.7)


def dripping(taken: socket.socket) -> None:
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    while True:
        time.sleep(0.05)
        taken.sendall(b" ")


BROKEN = {
    "500": (answer(b"No cluster leader", "500 No"), "500 No cluster leader"),
    "HTML": (answer(b"<html>"), "not JSON"),
    "redirect": (b"HTTP/1.1 302 F\r\nLocation: http://192.0.2.1/\r\n\r\n", "it redirects"),
    "a list": (answer(b"[]"), "not a Consul agent's"),
    "nested": (answer(b'{"a": {"Tags": "vmoor"}}'), "not a Consul agent's"),
    "10 MB": (answer(b" " * (10 << 20)), "longer than 4194304 bytes"),
    "endless": (endless, "longer than 4194304 bytes"),
    "dripping": (dripping, "no complete answer within 0.5 s"),
    "silent": (silent, "no complete answer within 0.5 s"),
    "not HTTP": (b"SSH-2.0\r\n", "not a complete HTTP answer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_takes_nothing_away(quick: None, name: str) -> None:
    """It is told in time, and what was found before stays."""
    server = Server()
    server.services = answer(json.dumps(services(1)).encode())
    with serving(server) as url:
        source = Source(ConsulSource(url))
        source.loop.turn()
        before = source.found
        assert source.names == ["s0000"]
        server.services, words = BROKEN[name]
        began = time.monotonic()
        source.loop.turn()
        assert time.monotonic() - began < 2
        outcome = source.loop.outcome.get()
        assert outcome.state == "fail"
        assert words in outcome.words
        assert source.found is before
        source.consul.close()


@pytest.mark.parametrize("name", BROKEN)
def test_without_a_query_that_blocks_the_rest_works(quick: None, name: str) -> None:
    """Whatever comes instead of it."""
    server = Server()
    server.services = answer(json.dumps(services(1)).encode())
    server.turn, words = BROKEN[name]
    if name == "nested":
        server.turn = answer(b'{"Checks": [{"Status": 1}]}')
    with serving(server) as url:
        source = Source(ConsulSource(url))
        assert source.loop.turn() == 2.0
        assert source.names == ["s0000"]
        assert words in source.loop.outcome.get().words
        source.consul.close()


def test_an_agent_that_hangs(quick: None) -> None:
    server = Server()
    server.node = lambda taken: server.ended.wait(5)
    with serving(server) as url:
        source = Source(ConsulSource(url))
        began = time.monotonic()
        with pytest.raises(errors.Unavailable, match="no complete answer"):
            source.consul.node(ConsulSource(url))
        assert time.monotonic() - began < 1
        source.consul.close()


@pytest.mark.parametrize("index", ["0", "", "-1", "x", "9" * 40, "3"])
def test_an_index_that_is_none_is_not_waited_for(index: str) -> None:
    """Missing, no number, or smaller than the last one: the next query starts anew."""
    server = Server()
    with serving(server) as url:
        source = Source(ConsulSource(url))
        source.loop.turn()
        server.turn = answer(b'{"Checks": null}', index=index)
        assert source.loop.turn() == 2.0
        source.loop.turn()
        asked = [path for path in server.asked if "internal" in path]
        assert [path.partition("?")[2] for path in asked] == ["", "index=7&wait=60s", ""]
        source.consul.close()


def test_five_thousand_services() -> None:
    """The first thousand count, and it does not take long."""
    server = Server()
    server.services = answer(json.dumps(services(5000)).encode())
    with serving(server) as url:
        source = Source(ConsulSource(url))
        began = time.monotonic()
        source.loop.turn()
        assert time.monotonic() - began < 2
        assert len(source.names) == 1000
        assert "declares 5000 services" in source.found.problems[0]
        source.consul.close()


def services(count: int) -> dict[str, Any]:
    return {
        f"s{i:04}": {
            "ID": f"s{i:04}", "Service": f"s{i:04}", "Tags": ["vmoor"], "Port": i + 1, "Meta": {},
            "Weights": {"Passing": 1, "Warning": 1}, "Address": "", "EnableTagOverride": False,
        }
        for i in range(count)
    }  # fmt: skip
