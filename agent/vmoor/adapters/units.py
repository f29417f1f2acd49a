"""systemd over D-Bus, without privilege.

One thread (`run`) follows the watched units by signals; what it saw last stands in `states`.
Everything else takes a connection of its own, so that it works while the bus is being stopped,
and never waits for a job.

A unit that dies and is restarted may be active again before anyone looks: its invocation_id is
another one then.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Optional

import jeepney

from vmoor.adapters.bus import SOCKET, Bus, Refused
from vmoor.errors import Forbidden, LocalFault, VmoorError
from vmoor.model.proxy import UnitState
from vmoor.runtime.backoff import Backoff
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

SYSTEMD = "org.freedesktop.systemd1"
LOOK_S = 1.0  # the stop event can't end a select, `wake` can
_MANAGER = jeepney.DBusAddress("/org/freedesktop/systemd1", SYSTEMD, f"{SYSTEMD}.Manager")
_GONE = (f"{SYSTEMD}.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject")
# The manager is away for a moment (daemon-reexec): connect anew, nothing is known of the unit.
_AWAY = frozenset(
    f"org.freedesktop.DBus.Error.{word}"
    for word in (
        "ServiceUnknown",
        "NameHasNoOwner",
        "NoReply",
        "Timeout",
        "TimedOut",
        "Disconnected",
    )
)
# Property of the D-Bus interfaces Unit and Service -> field of UnitState.
_FIELDS = {
    "LoadState": "load",
    "ActiveState": "active",
    "SubState": "sub",
    "MainPID": "main_pid",
    "InvocationID": "invocation_id",
    "StatusText": "status_text",
    "Result": "result",
    "ActiveEnterTimestamp": "active_since",
}


def load_state(name: str, path: str = SOCKET) -> str:
    """The LoadState of a unit, whether it is in use or not. Raises VmoorError."""
    with closing(Bus(path)) as bus:
        return str(
            bus.property(_unit(bus.call(_MANAGER, "LoadUnit", "s", (name,))[0]), "LoadState")
        )


class SystemdUnits:
    """Port `Units`; `states` holds only units that were read at least once."""

    def __init__(self, path: str = SOCKET) -> None:
        self.states: Cell[Mapping[str, UnitState]] = Cell({})
        # Counts connections and ended reloads: unit files may have changed.
        self.reloads: Cell[int] = Cell(0)
        self._path = path
        self._names: Sequence[str] = ()
        self._followed = False
        self._wake_out, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def watch(self, names: Sequence[str]) -> None:
        fresh = sorted(set(names))
        if fresh != self._names:
            self._names = fresh
            self.wake()

    def wake(self) -> None:
        """Let the reading thread look at once at what it watches and whether it shall stop."""
        os.write(self._wake, b".")

    def state(self, name: str) -> UnitState:
        return self.states.get().get(name, UnitState(name, load=""))

    def start(self, name: str) -> None:
        self._job("StartUnit", name)

    def restart(self, name: str) -> None:
        self._job("RestartUnit", name)

    def stop(self, name: str) -> None:
        self._job("StopUnit", name)

    def _job(self, method: str, name: str) -> None:
        try:
            with closing(Bus(self._path)) as bus:
                bus.call(_MANAGER, method, "ss", (name, "replace"))
        except Forbidden as e:
            raise Forbidden(
                f"cannot {method[:-4].lower()} {name}: polkit does not allow it",
                remedy="reinstall the package vmoor, whose polkit rule does, and start polkit",
            ) from e

    def job_type(self, name: str) -> str:
        try:
            with closing(Bus(self._path)) as bus:
                unit = bus.call(_MANAGER, "GetUnit", "s", (name,))[0]
                _, job = bus.property(_unit(unit), "Job")
                if job == "/":
                    return ""
                return str(
                    bus.property(jeepney.DBusAddress(job, SYSTEMD, f"{SYSTEMD}.Job"), "JobType")
                )
        except Refused as e:
            if e.name in _GONE:  # the unit or, between the two questions, the job
                return ""
            raise

    def system_state(self) -> str:
        with closing(Bus(self._path)) as bus:
            return str(bus.property(_MANAGER, "SystemState"))

    def run(self, stop: threading.Event) -> None:
        """The reading thread's life: connect, follow, and again when the bus went away."""
        backoff = Backoff()
        while not stop.is_set():
            trouble = self._follow(stop)
            if trouble is None:
                return
            backoff = Backoff() if self._followed else backoff.failed()
            delay = backoff.delay(random.random())  # noqa: S311 - jitter, not a secret
            if backoff.failures <= 1:
                log.warning("Cannot follow units: %s, next try in %.0f s", trouble, delay)
            stop.wait(delay)

    def _follow(self, stop: threading.Event) -> Optional[VmoorError]:
        """Until `stop`, or what ended it."""
        self._followed = False
        try:
            follower = _Follower(self._path, self.states, self.reloads)
            with closing(follower.bus):
                follower.subscribe()
                while not stop.is_set():
                    follower.only(self._names)
                    self._followed = True
                    follower.bus.listen(self._wake_out, LOOK_S)
                    _drain(self._wake_out)
        except (LocalFault, Forbidden) as e:
            return e
        return None


class _Follower:
    """One connection's subscription. Signals carry the new values: no question is needed."""

    def __init__(
        self, path: str, states: Cell[Mapping[str, UnitState]], reloads: Cell[int]
    ) -> None:
        self._states = states
        self._reloads = reloads
        self._paths: dict[str, str] = {}
        self._stale: set[str] = set()
        self.bus = Bus(path, self._on_signal)

    def subscribe(self) -> None:
        self.bus.match(_rule(_MANAGER.object_path, _MANAGER.interface, "Reloading"))
        self.bus.call(_MANAGER, "Subscribe")
        self._reloads.set(self._reloads.get() + 1)

    def only(self, names: Sequence[str]) -> None:
        """Follow exactly these, and read anew what signals alone can't tell.

        Never loads a unit because UnitNew or UnitRemoved said so: loading an idle one causes
        both, for ever. A unit that is loaded later tells by PropertiesChanged on the same path.
        """
        for name in [known for known in self._paths if known not in names]:
            path = self._paths.pop(name)
            if path:
                self.bus.unmatch(_rule(path, *_CHANGED))
        for name in [wanted for wanted in names if wanted not in self._paths]:
            self._add(name)
        stale, self._stale = self._stale & self._paths.keys(), set()
        states = self._states.get()
        self._states.set({name: s for name, s in states.items() if name in names})
        for name in sorted(stale):
            seen = _with(UnitState(name), self.bus.properties(_unit(self._paths[name])))
            self._states.set({**self._states.get(), name: seen})

    def _add(self, name: str) -> None:
        try:
            path = self.bus.call(_MANAGER, "LoadUnit", "s", (name,))[0]
        except Refused as e:
            if e.name in _AWAY:
                raise
            # not a unit's name at all
            self._paths[name] = ""
            self._states.set({**self._states.get(), name: UnitState(name)})
            return
        self._paths[name] = path
        self.bus.match(_rule(path, *_CHANGED))
        self._stale.add(name)

    def _on_signal(self, message: jeepney.Message) -> None:
        member = message.header.fields.get(jeepney.HeaderFields.member)
        path = message.header.fields.get(jeepney.HeaderFields.path)
        if member == "Reloading":
            if not message.body[0]:  # done: a unit may have come, gone, or be another one
                self._stale.update(name for name, p in self._paths.items() if p)
                self._reloads.set(self._reloads.get() + 1)
        elif member == "PropertiesChanged":
            changed = {name: value for name, (_, value) in message.body[1].items()}
            for name in [n for n, p in self._paths.items() if p == path]:
                self._take(name, changed)

    def _take(self, name: str, changed: Mapping[str, Any]) -> None:
        """What comes before a unit's first reading is part of that reading."""
        old = self._states.get().get(name)
        if old is None:
            return
        if old.load != "loaded" and changed.get("ActiveState", "inactive") != "inactive":
            self._stale.add(name)  # LoadState is never signalled
        self._states.set({**self._states.get(), name: _with(old, changed)})


_CHANGED = ("org.freedesktop.DBus.Properties", "PropertiesChanged")


def _rule(path: str, interface: Optional[str], member: str) -> str:
    return (
        f"type='signal',sender='{SYSTEMD}',path='{path}',interface='{interface}',member='{member}'"
    )


def _unit(path: str) -> jeepney.DBusAddress:
    return jeepney.DBusAddress(path, SYSTEMD, f"{SYSTEMD}.Unit")


def _with(state: UnitState, properties: Mapping[str, Any]) -> UnitState:
    fields = {_FIELDS[name]: value for name, value in properties.items() if name in _FIELDS}
    if "invocation_id" in fields:
        fields["invocation_id"] = bytes(fields["invocation_id"]).hex()
    return replace(state, **fields)


def _drain(descriptor: int) -> None:
    try:
        os.read(descriptor, 4096)
    except BlockingIOError:
        return
