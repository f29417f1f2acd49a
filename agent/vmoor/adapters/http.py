"""HTTP and HTTPS with a hard deadline: the only module that knows requests.

Never in an error or a repr: a header, a token, a body. Never followed: a redirect. Never read:
the environment (proxies, REQUESTS_CA_BUNDLE, netrc).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Optional, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from vmoor import __version__, errors
from vmoor.adapters import timed
from vmoor.adapters.timed import Connection

T = TypeVar("T")

BODY_LIMIT = 4 << 20  # bytes; a list of 500 entries is 1 MB
LINE_LIMIT = 1 << 20  # bytes; etcd keeps no object larger than 1.5 MB, an entry has 2 KB
_PIECE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A complete answer that is not a redirect."""

    status: int
    origin: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise errors.Unavailable(
                f"cannot use the answer of {self.origin}: {self.status}, not JSON"
            ) from None

    @property
    def retry_after(self) -> Optional[float]:
        """Seconds. The header's other form, a date, is left to our own back-off."""
        value = self.headers.get("Retry-After", "")
        return float(value) if value.isdecimal() else None


class Servers:
    """Several addresses of one service: the one that answered last is asked first.

    Any thread may ask; each call goes its own way round.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.urls = tuple(url.rstrip("/") for url in urls)
        self._clock = clock
        self._first = 0

    @property
    def current(self) -> str:
        return self.urls[self._first]

    def ask(self, call: Callable[[str, float], T], deadline: float) -> T:
        """`call(url, seconds)` for one after the other while it raises Unavailable.

        Each gets an equal share of what is left of `deadline` seconds.
        """
        end, count, first = self._clock() + deadline, len(self.urls), self._first
        for tries in range(count, 0, -1):
            at = (first + count - tries) % count
            try:
                answer = call(self.urls[at], (end - self._clock()) / tries)
            except errors.Unavailable:
                if tries == 1:
                    raise
            else:
                self._first = at
                return answer
        raise AssertionError("no server is configured")


class Session:
    """Requests to few servers, over one kept connection each; any thread may call.

    `ca`: PEM text, or the path of a bundle, which is read anew for each connection so that a
    replaced file counts; "" = the system's roots. `ca_name` is the configuration's word for it.
    """

    def __init__(
        self,
        ca: str = "",
        ca_name: str = "ca_cert",
        clock: Callable[[], float] = time.monotonic,
        limit: int = BODY_LIMIT,
        dial: Callable[[str, int, timed.Left], socket.socket] = timed.dial,
    ) -> None:
        self._ca = ca
        self._ca_name = ca_name
        self._clock = clock
        self._limit = limit
        self._dial = dial
        self._idle: dict[str, Connection] = {}
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._made_lock = threading.Lock()
        self._ended = False

    def end(self) -> None:
        """For good, from any thread: what is asked, now or later, is Unavailable at once."""
        with self._made_lock:
            self._ended = True
            made = list(self._made)
        for connection in made:
            connection.drop()

    def close(self) -> None:
        with contextlib.suppress(KeyError):  # until it is empty; others take from it, too
            while True:
                self._idle.popitem()[1].close()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: Optional[bytes] = None,
        deadline: float,
    ) -> Answer:
        """Raises Unavailable when there is no complete answer within `deadline` seconds."""
        origin = origin_of(url)
        with self._translated(origin, deadline):
            connection, response = self._begin(method, url, headers, body, deadline)
            try:
                content = self._read(response, origin)
                answer = Answer(
                    response.status, origin, CaseInsensitiveDict(response.getheaders()), content
                )
                keep = not response.will_close
            except BaseException:
                response.close()
                connection.close()
                raise
            if not keep or self._idle.setdefault(origin, connection) is not connection:
                connection.close()
        return answer

    def stream(
        self, method: str, url: str, *, headers: Mapping[str, str], deadline: float, idle: float
    ) -> Iterator[bytes]:
        """The lines of an endless answer, on a connection of its own, until the server ends it.

        The headers must come within `deadline` seconds and each line within `idle` seconds of the
        one before, or Unavailable is raised. An answer that is not 200 is raised as `NotOk`.
        """
        origin = origin_of(url)
        connection = self._connection(url)
        try:
            with self._translated(origin, deadline):
                response = self._exchange(connection, method, url, headers, None, deadline)
                if response.status != http.client.OK:
                    raise NotOk(
                        Answer(
                            response.status,
                            origin,
                            CaseInsensitiveDict(response.getheaders()),
                            self._read(response, origin),
                        )
                    )
            while True:
                with self._translated(origin, idle):
                    connection.until = self._clock() + idle
                    line = response.readline(LINE_LIMIT)
                if not line.endswith(b"\n"):
                    return
                yield line
        finally:
            connection.close()

    def for_hvac(self) -> requests.Session:
        """A requests.Session whose every request goes through here; `timeout` is the deadline."""
        return _Front(self)

    def _begin(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes],
        deadline: float,
    ) -> tuple[Connection, http.client.HTTPResponse]:
        connection = self._idle.pop(origin_of(url), None)
        if connection is not None and not connection.fresh():
            connection.close()
            connection = None
        if connection is None:
            connection = self._connection(url)
        try:
            return connection, self._exchange(connection, method, url, headers, body, deadline)
        except BaseException:
            connection.close()
            raise

    def _connection(self, url: str) -> Connection:
        connection = Connection(url, self._context, self._clock, self._dial)
        with self._made_lock:
            self._made.add(connection)
            ended = self._ended
        if ended:
            connection.drop()
        return connection

    def _exchange(
        self,
        connection: Connection,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Optional[bytes],
        deadline: float,
    ) -> http.client.HTTPResponse:
        connection.until = self._clock() + deadline
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        known = {"User-Agent": f"vmoor/{__version__}", "Accept": "application/json", **headers}
        try:
            connection.request(method.upper(), target, body=body, headers=known)
        except BrokenPipeError:
            # A server may answer, 413 for one, before it has read all of the request.
            pass
        except ssl.SSLError:  # some of them are ValueErrors too
            raise
        except ValueError:
            # http.client puts the header's value, a token, into this error.
            raise errors.Rejected(
                f"cannot send to {origin_of(url)}: a header or the path has unprintable characters"
            ) from None
        return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse, origin: str) -> bytes:
        if http.client.MULTIPLE_CHOICES <= response.status < http.client.BAD_REQUEST:
            where = origin_of(response.getheader("Location") or "")
            raise errors.Unavailable(
                f"cannot use {origin}: it redirects to {errors.quoted(where)}",
                remedy="configure the address that answers itself",
            )
        content = bytearray()
        while True:
            piece = response.read(_PIECE)
            content += piece
            if len(content) > self._limit:
                raise errors.Unavailable(
                    f"cannot use the answer of {origin}: longer than {self._limit} bytes"
                )
            if not piece:
                break
        if response.length:
            raise http.client.IncompleteRead(b"")
        return bytes(content)

    def _context(self) -> ssl.SSLContext:
        context = self.trusted()
        # Python 3.13's default. It refuses certificates without an authority key identifier, as
        # those of EKS's API servers and many a private CA's are; no other client of theirs minds.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def trusted(self) -> ssl.SSLContext:
        """Raises LocalFault when the CA certificates cannot be read."""
        if not self._ca:
            return ssl.create_default_context()
        if self._ca.lstrip().startswith("-----BEGIN"):
            return self._trusting(self._ca_name, cadata=self._ca)
        return self._trusting(self._ca, cafile=self._ca)

    def _trusting(self, name: str, **ca: str) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(**ca)  # type: ignore[arg-type]
        except ssl.SSLError:
            reason = "no PEM certificate in it"
        except OSError as e:
            reason = (e.strerror or "not a file").lower()
        raise errors.LocalFault(
            f"cannot read the CA certificates of {name}: {reason}",
            remedy=f"{self._ca_name} must be PEM certificates, readable by user {user()}",
        )

    @contextmanager
    def _translated(self, origin: str, seconds: float) -> Iterator[None]:
        """What http.client, ssl and the socket raise, as Unavailable without its cause."""

        def away(words: str) -> NoReturn:
            raise errors.Unavailable(f"cannot reach {origin}: {words}") from None

        try:
            yield
        except ssl.SSLCertVerificationError as e:
            raise errors.Untrusted(
                f"cannot reach {origin}: its certificate is not trusted: {e.verify_message}",
                remedy=f"{self._ca_name} does not match, or the certificate lacks this address",
            ) from None
        except ssl.SSLError as e:
            away(f"TLS failed: {e.reason or 'connection closed'}")
        except socket.timeout:
            away(f"no complete answer within {seconds:.1f} s")
        except http.client.RemoteDisconnected:
            away("connection closed without an answer")
        except socket.gaierror as e:
            away(f"its name does not resolve: {(e.strerror or '').lower()}")
        except OSError as e:
            away((e.strerror or "connection failed").lower())
        except http.client.HTTPException as e:
            away(f"not a complete HTTP answer ({type(e).__name__})")


def user() -> str:
    """Who must be able to read what this process reads."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # in a container
        return str(os.geteuid())


class NotOk(Exception):
    """A stream's server gave a plain answer instead. Only for the adapter that asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} of {answer.origin}")
        self.answer = answer


def origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class _Front(requests.Session):
    """For libraries that want a requests.Session."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.trust_env = False
        self.headers = CaseInsensitiveDict()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Through(session))

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        try:
            return super().request(*args, **kwargs)
        except requests.RequestException as e:
            # Its text may hold the header that it objects to.
            raise errors.Rejected(f"cannot make a request: {type(e).__name__}") from None


class _Through(BaseAdapter):
    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, timeout: float, **_: Any
    ) -> requests.Response:
        body = request.body.encode() if isinstance(request.body, str) else request.body
        answer = self._session.request(
            str(request.method),
            str(request.url),
            headers=dict(request.headers),
            body=body or None,
            deadline=timeout,
        )
        response = requests.Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.url = str(request.url)
        response.request = request
        response._content = answer.body  # noqa: SLF001 - as requests' own adapter does
        return response

    def close(self) -> None:
        self._session.close()
