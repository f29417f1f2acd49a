"""A proxy in front of a real server of the rig that misbehaves on command.

It ends the TLS of its clients with a certificate of the rig's authority and speaks TLS to the
server: what it passes on is the real server's answer. Only what a fault names is made up.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Mapping
from typing import Optional

from tests.rig import inside
from tests.rig.certs import Authority
from tests.rig.network import ADDRESS, Network
from tests.rig.relay import Fault, Seen, Server


class FaultProxy:
    """Context manager. Faults add up; the first whose match fits a request is taken.

    A match is a regex, searched in "METHOD /path?query"; the empty one fits all.
    """

    def __init__(self, network: Network, authority: Authority, target: str, port: int) -> None:
        self._netns_path = network.netns_path
        listener = self._listener(port)
        self._port = int(listener.getsockname()[1])
        self._server = Server(listener, self._netns_path, target)
        certificate = authority.issue(f"faults-{self._port}", [ADDRESS])
        self._server.server_tls.load_cert_chain(*certificate)
        self._server.client_tls.load_verify_locations(authority.path)
        self._thread: Optional[threading.Thread] = None
        self.url = f"https://{ADDRESS}:{self._port}"

    def __enter__(self) -> FaultProxy:  # noqa: PYI034
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def _listener(self, port: int) -> socket.socket:
        return inside.call(self._netns_path, lambda: socket.create_server((ADDRESS, port)))

    def _serve(self) -> None:
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def seen(self) -> tuple[Seen, ...]:
        """All requests so far, oldest first; connections that were refused carried none."""
        return tuple(self._server.seen)

    def refuse(self) -> None:
        """End all other faults, cut every connection, and listen no more until clear()."""
        self._lift()
        if self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread = None
        for relay in tuple(self._server.relays):
            relay.cut()

    def status(
        self,
        code: int,
        headers: Optional[Mapping[str, str]] = None,
        body: str = "",
        match: str = "",
    ) -> None:
        """This answer instead of the server's, which never sees the request."""
        self._add(Fault("status", re.compile(match), code, headers or {}, body.encode()))

    def drip(self, seconds_per_byte: float, match: str = "") -> None:
        """The real answer, from its status line on, a byte at a time; the rest at clear()."""
        self._add(Fault("drip", re.compile(match), seconds_per_byte=seconds_per_byte))

    def hang(self, match: str = "") -> None:
        """No answer; the connection is closed at clear()."""
        self._add(Fault("hang", re.compile(match)))

    def late(self, seconds: float, match: str = "") -> None:
        """The server does it at once, and its answer comes so much later."""
        self._add(Fault("late", re.compile(match), delay=seconds))

    def swallow(self, match: str = "") -> None:
        """The server does it, and its answer never comes; the connection is closed at clear()."""
        self._add(Fault("swallow", re.compile(match)))

    def clear(self) -> None:
        """End all faults, also for the requests that suffer from one now."""
        self._lift()
        if self._thread is None:
            self._server.socket = self._listener(self._port)
            self._serve()

    def _lift(self) -> None:
        faults, self._server.faults = self._server.faults, ()
        for fault in faults:
            fault.lifted.set()

    def _add(self, fault: Fault) -> None:
        self._server.faults += (fault,)
