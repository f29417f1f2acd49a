"""Three VMs of one address in any order, each pass cut into by those of the others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from random import Random
from typing import Optional

import pytest
from vmoor.errors import Unavailable, VmoorError
from vmoor.model import lease
from vmoor.model.claim import State

from tests.fakes.cluster import FakeCluster
from tests.unit.registration.world import Clock, Vm

ADDRESS = "10.0.0.1"
STEPS = 200


class World:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.cluster, self.clock = FakeCluster(), Clock()
        self.vms = [
            Vm(self.cluster, name=f"vm{i}", machine=f"m{i}", clock=self.clock) for i in range(3)
        ]
        self.failing = random.choice([0, 0.05, 0.2])
        self.running: list[tuple[Vm, str]] = []
        self.asleep: dict[str, float] = {}
        self.cluster.refuse = self.cluster.lose = self._failure
        self.cluster.before = self._cut_in

    def _failure(self, _verb: str, _name: str) -> Optional[VmoorError]:
        return Unavailable("away") if self.random.random() < self.failing else None

    def _cut_in(self, _verb: str, _name: str) -> None:
        if len(self.running) < 3 and self.random.random() < 0.4:
            self._pass(self.random.choice(self.vms))

    def _pass(self, vm: Vm) -> None:
        loop = self.random.choice(["heartbeat", "claiming"])
        if (vm, loop) in self.running:
            return
        vm.draw = self.random.random()
        self.running.append((vm, loop))
        with contextlib.suppress(VmoorError):
            getattr(vm, loop).reconcile()
        self.running.pop()

    def go(self) -> Iterator[list[str]]:
        """After each step, who would register now."""
        for _ in range(STEPS):
            self.clock.pass_by(self.random.choice([0, 0, 0.1, 1]))
            vm = self.random.choice(self.vms)
            chance, name = self.random.random(), vm.machine.name
            if chance < 0.01:
                self.asleep[name] = self.clock.now() + self.random.choice([5, 15, 30])
            elif self.asleep.get(name, 0.0) <= self.clock.now():
                if chance > 0.98:
                    vm.own_address.set(self.random.choice([ADDRESS, ADDRESS, "10.0.0.2"]))
                self._pass(vm)
            yield [vm.machine.name for vm in self.vms if self._registers(vm)]

    def _registers(self, vm: Vm) -> bool:
        lock = vm.lock.get()
        writes = lease.may_write(lock, vm.beat.get(), self.clock.now())
        return writes and vm.claimed.get().under(ADDRESS, lock) is State.OURS


@pytest.mark.parametrize("seed", range(40))
def test_never_do_two_have_it(seed: int) -> None:
    """Whatever fails, sleeps, moves away and comes back; and one has it sooner or later."""
    seen = list(World(Random(seed)).go())
    assert max(map(len, seen)) == 1
