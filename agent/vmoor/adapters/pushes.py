"""Listens to applications that say themselves how they are: a datagram socket for each.

One thread (`run`) waits for all of them; nothing is polled. A socket is made beside its place and
renamed to it, so there is one at all times once there was one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Optional

from vmoor import ttlunit
from vmoor.adapters.ttlfolders import ANSWER_S, Asked, unasked
from vmoor.errors import quoted
from vmoor.model import ttl
from vmoor.model.service import TtlProbe
from vmoor.model.ttl import Heard
from vmoor.runtime.backoff import Backoff
from vmoor.runtime.cell import Cell

log = logging.getLogger(__name__)

# Each takes a descriptor of the 1024 that the daemon has, and that select(2) elsewhere can take.
MOST = 250
# Who talks without end is read a hundred times a second, and that many messages each time.
PAUSE_S = 0.01
BATCH = 64
GARBAGE_TOLD_S = 60.0
LONGEST_S = 300.0  # between two tries; each is a process of root's


class Pushes:
    """`heard` holds, by service, what was said, and what keeps it from being heard.

    `now` is Clock.now; `asked` is where root is asked for the folders.
    """

    def __init__(
        self,
        now: Callable[[], float],
        folder: str = ttlunit.FOLDER,
        asked: str = ttlunit.SOCKET,
    ) -> None:
        self.heard: Cell[Mapping[str, Heard]] = Cell({})
        self._now = now
        self._folder = folder
        self._ask_at = asked
        self._wanted: Optional[Mapping[str, TtlProbe]] = None
        self._wake_out, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Of the reading thread alone
        self._selector = selectors.DefaultSelector()
        self._ears: dict[str, _Ear] = {}
        self._made: Optional[Mapping[str, str]] = None  # groups whose folders are there
        self._asking: Mapping[str, str] = {}  # the groups of the question that is open
        self._asked: Optional[Asked] = None
        self._backoff = Backoff()
        self._again = 0.0

    def watch(self, probes: Iterable[TtlProbe]) -> None:
        """Listen for exactly these."""
        fresh = {probe.service: probe for probe in probes}
        if fresh != self._wanted:
            self._wanted = fresh
            self.wake()

    def wake(self) -> None:
        """Let the reading thread look at once at what it watches and whether it shall stop."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake
            os.write(self._wake, b".")

    def run(self, stop: threading.Event) -> None:
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
        if not self._there():
            self._made = {}
        try:
            while not stop.is_set():
                ready = self._selector.select(self._follow())
                for key, _ in ready:
                    key.data()
                if ready:
                    stop.wait(PAUSE_S)
        finally:
            self._only({})
            if self._asked is not None:
                self._asked.link.close()
            self._selector.close()

    def _woken(self) -> None:
        os.read(self._wake_out, 4096)

    def _there(self) -> set[str]:
        try:
            return set(os.listdir(self._folder))  # noqa: PTH208 - names, not paths
        except OSError:
            return set()

    def _follow(self) -> Optional[float]:
        """Do what is due; seconds until something is."""
        if self._wanted is None:  # not told yet: what is there may be wanted
            return None
        wanted = sorted(self._wanted.items())
        groups = {name: probe.group for name, probe in wanted[:MOST]}
        self._only(groups)
        self.heard.set(self._kept([name for name, _ in wanted]))
        now = time.monotonic()
        if self._asked is not None:
            if now < self._asked.until:
                return self._asked.until - now
            self._answered({"": f"no answer of vmoor-ttl after {ANSWER_S:g}s"})
        if groups == self._made:
            return None
        if groups != self._asking or now >= self._again:
            self._ask(groups)
        until = self._asked.until if self._asked else self._again
        return max(0.0, until - now)

    def _kept(self, wanted: Sequence[str]) -> Mapping[str, Heard]:
        beyond = Heard(trouble=f"not listened to, there are more than {MOST} ttl checks")
        kept = {name: heard for name, heard in self.heard.get().items() if name in wanted}
        return {**kept, **dict.fromkeys(wanted[MOST:], beyond)}

    def _only(self, groups: Mapping[str, str]) -> None:
        for name in [n for n, ear in self._ears.items() if groups.get(n) != ear.group]:
            self._deafen(name)

    def _deafen(self, name: str) -> None:
        ear = self._ears.pop(name, None)
        if ear is not None:
            self._selector.unregister(ear.socket)
            ear.socket.close()

    def _ask(self, groups: Mapping[str, str]) -> None:
        for name in self._there() - groups.keys():  # or root could not remove the folder
            with contextlib.suppress(OSError):
                os.unlink(self._path(name))  # noqa: PTH108
        self._asking = groups
        try:
            self._asked = Asked(self._ask_at)
            self._selector.register(self._asked.link, selectors.EVENT_READ, self._hear_answer)
        except OSError as e:
            self._answered(unasked(e))

    def _hear_answer(self) -> None:
        problems = self._asked.read() if self._asked else None
        if problems is not None:
            self._answered(problems)

    def _answered(self, problems: Mapping[str, str]) -> None:
        """Root has done what it could; what is there is used."""
        if self._asked is not None:
            self._selector.unregister(self._asked.link)
            self._asked.link.close()
            self._asked = None
        troubles = {}
        for name, group in self._asking.items():
            root_said = problems.get(name, "")
            if self.heard.get().get(name, Heard()).trouble not in ("", root_said):
                self._deafen(name)  # a socket has the group that its folder had when it was made
            failed = "" if name in self._ears else self._listen(name, group)
            troubles[name] = root_said or (failed and (problems.get("") or failed))
        self._tell(troubles)
        if any(troubles.values()):
            self._backoff = self._backoff.failed()
            self._again = time.monotonic() + self._backoff.delay(random.random(), LONGEST_S)  # noqa: S311 - jitter
        else:
            self._made, self._backoff = self._asking, Backoff()

    def _listen(self, name: str, group: str) -> str:
        """Why not, "" = it does."""
        try:
            ear = _Ear(self._path(name), group)
        except OSError as e:
            return f"cannot listen at {self._path(name)}: {quoted(e.strerror)}"
        self._ears[name] = ear
        self._selector.register(ear.socket, selectors.EVENT_READ, lambda: self._hear(name, ear))
        return ""

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}/{ttlunit.ENTRY}"

    def _tell(self, troubles: Mapping[str, str]) -> None:
        heard = self.heard.get()
        for name, trouble in troubles.items():
            old = heard.get(name, Heard())
            if trouble and trouble != old.trouble:
                log.warning("Cannot hear %s: %s", name, trouble)
            if trouble != old.trouble:
                heard = {**heard, name: replace(old, trouble=trouble)}
        self.heard.set(heard)

    def _hear(self, name: str, ear: _Ear) -> None:
        said = ear.read()
        if said is None or not self._wanted or name not in self._wanted:
            return
        old = self.heard.get().get(name, Heard())
        new = ttl.heard_again(old, *said, self._now(), self._wanted[name].ttl)
        self.heard.refresh({**self.heard.get(), name: new})


class _Ear:
    """The socket of one service, at its place. Raises OSError."""

    def __init__(self, path: str, group: str) -> None:
        self.group = group
        self._path = path
        self._garbage_told = -GARBAGE_TOLD_S
        fresh = f"{path}.new"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)  # noqa: PTH108
            self.socket.bind(fresh)
            os.chmod(fresh, 0o660)  # noqa: PTH101
            os.rename(fresh, path)  # noqa: PTH104
        except OSError:
            self.socket.close()
            raise

    def read(self) -> Optional[tuple[str, str]]:
        """The newest of the messages that wait, None when there is none."""
        newest = None
        for _ in range(BATCH):
            try:
                message = self.socket.recv(ttl.SIZE_LIMIT)
            except OSError:  # BlockingIOError: that was all
                break
            said = ttl.parsed(message)
            if said is None:
                self._tell(message)
            newest = said or newest
        return newest

    def _tell(self, garbage: bytes) -> None:
        now = time.monotonic()
        if now - self._garbage_told >= GARBAGE_TOLD_S:
            self._garbage_told = now
            words = quoted(garbage.decode("utf-8", "replace")[:80])
            log.warning("Ignored at %s: '%s' is not pass, warn or fail", self._path, words)
