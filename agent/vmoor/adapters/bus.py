"""One connection to the system bus, with a deadline on everything.

jeepney marshals and parses; its own connections wait for Hello without a limit, and this one is
used while the bus is being stopped.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

import jeepney

from vmoor.errors import Forbidden, LocalFault, quoted

SOCKET = "/run/dbus/system_bus_socket"
TIMEOUT_S = 2.0
_BUS = jeepney.DBusAddress("/org/freedesktop/DBus", "org.freedesktop.DBus", "org.freedesktop.DBus")
_PROPERTIES = "org.freedesktop.DBus.Properties"
_DENIED = (
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
)


class Refused(LocalFault):
    """The other side answered with an error; `name` is D-Bus's name of it."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class Bus:
    """`on_signal` gets each signal in the order of arrival, also while a reply is awaited.

    Everything raises LocalFault; a call that polkit or the bus denies raises Forbidden.
    """

    def __init__(
        self, path: str = SOCKET, on_signal: Optional[Callable[[jeepney.Message], None]] = None
    ) -> None:
        self._on_signal = on_signal
        self._parser = jeepney.Parser()
        # What came in one read with a reply and after it is handed out after it.
        self._arrived: deque[jeepney.Message] = deque()
        self._serial = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._open(path, time.monotonic() + TIMEOUT_S)
            self.call(_BUS, "Hello")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def _open(self, path: str, until: float) -> None:
        """SASL EXTERNAL (D-Bus specification, authentication): the kernel vouches for the uid."""
        try:
            self._socket.settimeout(TIMEOUT_S)
            self._socket.connect(path)
            uid = str(os.geteuid()).encode().hex()
            self._socket.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
            line = b""
            while not line.endswith(b"\r\n"):
                line += self._some(until)
            if not line.startswith(b"OK "):
                raise LocalFault(f"cannot use the system bus: {quoted(line)}")
            self._socket.sendall(b"BEGIN\r\n")
        except OSError as e:
            raise _lost(e) from e

    def _some(self, until: float) -> bytes:
        left = until - time.monotonic()
        if left <= 0:
            raise LocalFault(f"cannot use the system bus: no answer within {TIMEOUT_S:g} s")
        self._socket.settimeout(left)
        try:
            piece = self._socket.recv(16384)
        except OSError as e:
            raise _lost(e) from e
        if not piece:
            raise LocalFault("cannot use the system bus: it has closed the connection")
        return piece

    def call(
        self, target: jeepney.DBusAddress, method: str, signature: str = "", body: Any = ()
    ) -> Any:
        """The reply's body. The deadline is TIMEOUT_S for the whole call."""
        message = jeepney.new_method_call(target, method, signature or None, body)
        self._serial += 1
        serial, until = self._serial, time.monotonic() + TIMEOUT_S
        try:
            self._socket.settimeout(TIMEOUT_S)
            self._socket.sendall(message.serialise(serial=serial))
        except OSError as e:
            raise _lost(e) from e
        while True:
            while self._arrived:
                got = self._arrived.popleft()
                if got.header.fields.get(jeepney.HeaderFields.reply_serial) == serial:
                    return _body(method, got)
                self._signal(got)
            self._arrived.extend(self._parser.feed(self._some(until)))

    def property(self, target: jeepney.DBusAddress, name: str) -> Any:
        at = target.with_interface(_PROPERTIES)
        return self.call(at, "Get", "ss", (target.interface, name))[0][1]

    def properties(self, target: jeepney.DBusAddress) -> dict[str, Any]:
        """Of all its interfaces, in one reply: they belong together."""
        pairs = self.call(target.with_interface(_PROPERTIES), "GetAll", "s", ("",))[0]
        return {name: value for name, (_, value) in pairs.items()}

    def match(self, rule: str) -> None:
        self.call(_BUS, "AddMatch", "s", (rule,))

    def unmatch(self, rule: str) -> None:
        self.call(_BUS, "RemoveMatch", "s", (rule,))

    def listen(self, wake: int, seconds: float) -> None:
        """Hand out the signals that arrive; ends early when descriptor `wake` is readable."""
        if not self._arrived:
            ready, _, _ = select.select([self._socket, wake], [], [], seconds)
            if self._socket in ready:
                piece = self._some(time.monotonic() + TIMEOUT_S)
                self._arrived.extend(self._parser.feed(piece))
        while self._arrived:
            self._signal(self._arrived.popleft())

    def _signal(self, message: jeepney.Message) -> None:
        if self._on_signal and message.header.message_type is jeepney.MessageType.signal:
            self._on_signal(message)


def _lost(error: OSError) -> LocalFault:
    return LocalFault(f"cannot use the system bus: {error.strerror or 'no answer'}")


def _body(method: str, reply: jeepney.Message) -> Any:
    if reply.header.message_type is not jeepney.MessageType.error:
        return reply.body
    name = reply.header.fields.get(jeepney.HeaderFields.error_name, "")
    text = quoted(reply.body[0] if reply.body else name)
    if name in _DENIED:
        raise Forbidden(f"cannot call {method} on systemd: {text}")
    raise Refused(name, f"cannot call {method} on systemd: {text}")
