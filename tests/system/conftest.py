"""One rig with one client for all system tests, a fleet per module, VMs per module or test."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator
from typing import Any, Callable

import pytest

from tests.rig.machine import Machine
from tests.stage import Stage
from tests.system import harness
from tests.system.fleet import Fleet

TEST_TIMEOUT = 240  # seconds for a test without its fixtures, the first of which may compile

_names = itertools.count(1)
_machines: list[Machine] = []  # for the report of a failure


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest module, which waits for leases and little else: first, or all wait for it.
    items.sort(key=lambda item: "test_reaper" not in item.nodeid)
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_TIMEOUT, func_only=True))


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")

    def tell(line: object) -> None:
        if reporter is not None:
            reporter.write_line(str(line))

    made = Stage(tell=tell)
    made.__enter__()
    try:
        yield made
    finally:
        # The rig keeps its logs when it is left by an exception.
        failed = pytest.fail.Exception if request.session.testsfailed else None
        made.__exit__(failed, None, None)


@pytest.fixture(scope="session")
def client(stage: Stage) -> Machine:
    """A moored VM whose Envoy tells what the mesh is for others; leave it as it is."""
    client = stage.client("client", "198.18.0.200")
    _machines.append(client)
    stage.boot(client)
    harness.wait_moored(client)
    return client


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Fleet]:
    """The module's own namespace, account, Vault role, mesh facts, service and fault proxies."""
    name = request.module.__name__.rpartition("test_")[2].replace("_", "-")
    with Fleet(stage, name) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _no_fault_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "fleet" in request.fixturenames:
        request.getfixturevalue("fleet").clear()


@contextlib.contextmanager
def _booted(fleet: Fleet, *options: str, name: str = "", **more: Any) -> Iterator[Machine]:
    vm = fleet.vm(name or f"{fleet.name}-{next(_names)}", *options, **more)
    _machines.append(vm)
    try:
        fleet.stage.boot(vm)
        yield vm
    finally:
        if vm.alive:
            vm.power_cut()
        fleet.forget(vm)


@pytest.fixture
def vm(fleet: Fleet) -> Iterator[Callable[..., Machine]]:
    """Boots a fresh VM for this test; the arguments are those of `Fleet.vm`, name= if need be."""
    with contextlib.ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(_booted(fleet, *options, **more))


@pytest.fixture(scope="module")
def module_vm(fleet: Fleet) -> Iterator[Callable[..., Machine]]:
    """As `vm`, for a VM that several tests of the module use."""
    with contextlib.ExitStack() as stack:
        yield lambda *options, **more: stack.enter_context(_booted(fleet, *options, **more))


@pytest.fixture(scope="module")
def _cold(module_vm: Callable[..., Machine]) -> Machine:
    return module_vm(secret_id="none")


@pytest.fixture
def cold(_cold: Machine) -> Iterator[Machine]:
    """The module's VM for `harness.cold_start`; it is out of the mesh before and after a test."""
    yield _cold
    _cold.run("systemctl", "stop", "vmoor")


@pytest.fixture(scope="module")
def web(fleet: Fleet, client: Machine, module_vm: Callable[..., Machine]) -> Machine:
    """The module's own moored VM, in the client's Envoy; each test leaves it as it found it."""
    web = module_vm()
    harness.wait_moored(web)
    client.wait(lambda: fleet.in_mesh(client, web), harness.PATIENCE, "the endpoint")
    return web


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        for vm in _machines:
            if vm.alive:
                report.sections += _last_words(vm)
    return report


def _last_words(vm: Machine) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(Exception):  # the report of a failure must not fail
        said = vm.run("vmoor", "status", check=False)
        yield f"vmoor status on {vm.name}", said.stdout + said.stderr
        lines = [line for line in vm.journal().splitlines() if "vmoor" in line]
        yield f"journal of {vm.name}", "\n".join(lines[-60:])
