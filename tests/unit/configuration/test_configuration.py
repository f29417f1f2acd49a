from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Optional

import pytest
from vmoor.config.settings import Settings
from vmoor.controllers.configuration import Configuration
from vmoor.errors import LocalFault, Misconfigured
from vmoor.model.machine import Machine
from vmoor.runtime.cell import Cell

ACCEPTED = "/var/lib/vmoor/accepted.json"


def document(port: int = 8080, workload: str = "web") -> dict[str, Any]:
    return {
        "vault": {"address": "https://vault:8200", "auth": {"method": "approle", "role_id": "r"}},
        "mesh": "secret/vmoor/mesh-a",
        "workload": {"namespace": "shop", "name": workload, "service_account": "web"},
        "services": {"web": {"port": port}},
    }


@dataclass
class Tree:
    """/etc/vmoor and the state directory, as the controller sees them."""

    document: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    none: bool = False
    stamp: int = 0
    kept: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0
    broken: int = 0  # how many reads fail first

    def read_all(self) -> Tree:
        self.reads += 1
        if self.reads <= self.broken:
            raise LocalFault("cannot run vmoor.config.load: not done after 20 s")
        return self

    def read(self, path: str) -> Optional[bytes]:
        return self.kept.get(path)

    def write(self, path: str, content: bytes, mode: int, *, durable: bool = False) -> None:
        self.kept[path] = content

    def remove(self, path: str) -> None:
        self.kept.pop(path, None)


def agent(tree: Tree) -> tuple[Configuration, Cell[Optional[Settings]]]:
    cell: Cell[Optional[Settings]] = Cell(None)
    machine: Cell[Optional[Machine]] = Cell(None)
    made = Configuration(
        cell,
        tree.read_all,
        lambda: str(tree.stamp),
        tree,
        ACCEPTED,
        lambda name: Machine(name or "vm-1", "hash", "boot"),
        machine,
        lambda _: None,
    )
    return made, cell


def port(cell: Cell[Optional[Settings]]) -> int:
    settings = cell.get()
    assert settings is not None
    return settings.services[0].ports["http"]


def test_good_configuration_is_taken_and_kept() -> None:
    """An accepted configuration survives in the state directory."""
    tree = Tree(document())
    controller, cell = agent(tree)
    controller.reconcile()
    assert port(cell) == 8080
    assert json.loads(tree.kept[ACCEPTED])["document"] == document()


def test_none_waits_and_looks_again() -> None:
    """Without a configuration the agent waits, and takes it up when it appears."""
    tree = Tree(none=True, problems=("no configuration",))
    controller, cell = agent(tree)
    settled = controller.reconcile()
    assert settled.waiting
    assert "no configuration" in settled.words
    tree.none, tree.problems, tree.document, tree.stamp = False, (), document(), 1
    controller.reconcile()
    assert port(cell) == 8080


def test_wrong_one_at_reload_keeps_the_old() -> None:
    """SIGHUP with a broken file changes nothing but the condition."""
    tree = Tree(document())
    controller, cell = agent(tree)
    controller.reconcile()
    tree.problems = ("/etc/vmoor/conf.d/20.yaml:3: services.web.port: 0 is not a port",)
    controller.reload()
    with pytest.raises(Misconfigured) as told:
        controller.reconcile()
    assert told.value.problems == tree.problems
    assert port(cell) == 8080


def test_wrong_one_at_start_takes_the_accepted() -> None:
    """A restart with a broken file runs on with what was accepted before."""
    tree = Tree(document(port=9090))
    agent(tree)[0].reconcile()
    tree.problems, tree.stamp = ("broken",), 1
    controller, cell = agent(tree)
    with pytest.raises(Misconfigured):
        controller.reconcile()
    assert port(cell) == 9090


def test_accepted_files_are_not_validated_again_at_a_start() -> None:
    """An agent that crashed beats again without waiting for a child process."""
    tree = Tree(document())
    agent(tree)[0].reconcile()
    controller, cell = agent(tree)
    controller.reconcile()
    assert port(cell) == 8080
    assert tree.reads == 1


def test_other_files_are_validated_at_a_start() -> None:
    """What was accepted before does not hide what the files say now."""
    tree = Tree(document())
    agent(tree)[0].reconcile()
    tree.document, tree.stamp = document(port=9090), 1
    controller, cell = agent(tree)
    controller.reconcile()
    assert port(cell) == 9090


def test_mended_file_is_taken_without_a_signal() -> None:
    """Who mends the file that was refused needs no reload."""
    tree = Tree(document(), problems=("broken",))
    controller, cell = agent(tree)
    with pytest.raises(Misconfigured):
        controller.reconcile()
    tree.problems, tree.stamp = (), 1
    controller.reconcile()
    assert port(cell) == 8080


def test_refused_files_are_not_read_again_until_they_change() -> None:
    """Looking is a stat, not a child process each second."""
    tree = Tree(problems=("broken",))
    controller, _ = agent(tree)
    for _ in range(3):
        with pytest.raises(Misconfigured):
            controller.reconcile()
    assert tree.reads == 1


def test_who_the_vm_is_needs_a_restart() -> None:
    """A new workload under running entries is refused with the command to type."""
    tree = Tree(document())
    controller, _ = agent(tree)
    controller.reconcile()
    tree.document = document(workload="other")
    controller.reload()
    with pytest.raises(Misconfigured) as told:
        controller.reconcile()
    assert told.value.remedy == "systemctl stop vmoor && systemctl start vmoor"


def test_a_hiccup_while_reading_loses_nothing() -> None:
    """A child that could not run on a busy machine is run again at the next pass."""
    tree = Tree(document(), broken=1)
    controller, cell = agent(tree)
    with pytest.raises(LocalFault):
        controller.reconcile()
    controller.reconcile()
    assert port(cell) == 8080
