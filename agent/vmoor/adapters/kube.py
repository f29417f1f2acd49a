"""The API server over HTTP, in one namespace or in all, with whatever token there is now.

Any thread may ask. One connection is kept; who finds it in use opens another for that one request,
and a watch has its own, so nobody waits for anybody: the beat must not for a list that hangs. It
judges nothing; it says what the server's refusal means.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn, Optional
from urllib.parse import urlencode

from vmoor import errors
from vmoor.adapters import http
from vmoor.model import entry
from vmoor.model.credential import Credentials
from vmoor.model.secret import Secret
from vmoor.model.service import Workload
from vmoor.ports import Change, Kind, Object

OPEN_S = 10.0  # until a watch is answered
# Bookmarks come about once a minute (apiserver/pkg/storage/cacher): three missed are silence.
SILENCE_S = 200.0
WATCH_S = (300, 600)
OK, BAD_REQUEST = 200, 400
UNAUTHORIZED, FORBIDDEN, NOT_FOUND = 401, 403, 404
TIMEOUT, CONFLICT, GONE, THROTTLED, BROKEN = 408, 409, 410, 429, 500
AWAY = (502, 503, 504)  # worth asking another server of the list
PAGE = 500  # objects of an answer to a list: 1 MB of entries, of http.BODY_LIMIT's 4


@dataclass(frozen=True)
class Access:
    """Which API server, as whom, and where. `remedy` is the command that grants the rights.

    The names are for people: who asks, and what says where, by whose CA and with which token.
    """

    servers: tuple[str, ...]
    ca: str
    token: Secret
    namespace: str  # "" = all
    account: str
    remedy: str
    asker: str = "this VM"
    server_name: str = "kubernetes.server of the mesh facts"
    ca_name: str = "kubernetes.ca of the mesh facts"
    token_remedy: str = ""
    generation: int = 0  # of the token

    @property
    def unreached(self) -> str:
        return f"let {self.asker} reach the API server, or mend {self.server_name}"


def of_agent(
    credentials: Callable[[], Optional[Credentials]],
    workload: Callable[[], Optional[Workload]],
) -> Callable[[], Access]:
    """None = not known yet."""

    def access() -> Access:
        known, kind = credentials(), workload()
        if known is None or kind is None:
            raise errors.Unavailable("cannot ask the API server: no token yet")
        return Access(
            known.facts.kubernetes.server,
            known.facts.kubernetes.ca,
            known.api.value,
            kind.namespace,
            f"{kind.service_account}-vmoor",
            f"vmoor admin manifests --namespace {kind.namespace} "
            f"--service-account {kind.service_account} | kubectl apply -f -",
            generation=known.api.generation,
        )

    return access


class _Call(NamedTuple):
    """What is asked, in the words of RBAC."""

    verb: str
    resource: str
    name: str
    access: Access

    def __str__(self) -> str:
        thing = f"{self.resource} {self.name}".strip()
        return f"{self.verb} {thing} {self.where}"

    @property
    def where(self) -> str:
        namespace = self.access.namespace
        return f"in namespace {namespace}" if namespace else "in all namespaces"


class _Reach(NamedTuple):
    """One list of servers, and the connections to them."""

    of: tuple[Sequence[str], str]  # the list and its CA
    servers: http.Servers
    session: http.Session


class _Line:
    """What all who ask share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reach = _Reach(((), ""), http.Servers(()), http.Session())
        self.turn = 0  # which server of the list the watch asks

    def reach(self, access: Access) -> _Reach:
        """A request goes on with what it began with, though the facts change meanwhile."""
        with self._lock:
            if self._reach.of != (access.servers, access.ca):
                self._reach.session.close()
                session = http.Session(access.ca, access.ca_name)
                of = access.servers, access.ca
                self._reach = _Reach(of, http.Servers(access.servers), session)
            return self._reach

    def close(self) -> None:
        self._reach.session.close()


class Kube:
    """Port Cluster. `access` raises Unavailable while nothing is known."""

    def __init__(self, access: Callable[[], Access], line: Optional[_Line] = None) -> None:
        self._access = access
        self._line = line or _Line()

    def within(self, namespace: str) -> Kube:
        return Kube(lambda: replace(self._access(), namespace=namespace), self._line)

    def get(self, kind: Kind, name: str, *, deadline: float) -> Optional[Object]:
        call, answer = self._ask("get", kind, name, deadline=deadline)
        if answer.status == NOT_FOUND and _is_about(answer, name):
            return None
        return _object(call, answer)

    def list(self, kind: Kind, selector: str, *, deadline: float) -> tuple[Sequence[Object], str]:
        query = {"labelSelector": selector, "limit": str(PAGE)}
        things: list[Object] = []
        while True:
            call, answer = self._ask("list", kind, query=query, deadline=deadline)
            listed = _object(call, answer)
            # The items of a list say neither kind nor apiVersion.
            things += listed.get("items") or ()
            more = entry.metadata(listed).get("continue")
            if not more:
                return things, entry.version(listed)
            query["continue"] = str(more)

    def create(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        query = {"fieldManager": entry.OWNER}
        call, answer = self._ask("create", kind, body=body, query=query, deadline=deadline)
        return _object(call, answer)

    def replace(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        name, query = entry.name(body), {"fieldManager": entry.OWNER}
        call, answer = self._ask("update", kind, name, body=body, query=query, deadline=deadline)
        return _object(call, answer, gone=_is_about(answer, name))

    def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        force: bool,
        status: bool = False,
        manager: str = entry.OWNER,
        deadline: float,
    ) -> Object:
        name = entry.name(body)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        call, answer = self._ask(
            "patch", kind, name, body=body, query=query, status=status, deadline=deadline
        )
        return _object(call, answer, gone=_is_about(answer, name))

    def delete(
        self, kind: Kind, name: str, *, uid: str, resource_version: str, deadline: float
    ) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
        }
        call, answer = self._ask("delete", kind, name, body=body, deadline=deadline)
        if answer.status != NOT_FOUND:
            _object(call, answer)

    def watch(self, kind: Kind, selector: str, resource_version: str) -> Iterator[Change]:
        access = self._access()
        reach = self._line.reach(access)
        call = _call("watch", kind, "", access)
        seconds = random.randint(*WATCH_S)  # noqa: S311 - spreads the fleet, no secret
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": selector,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        urls = reach.servers.urls
        url = urls[self._line.turn % len(urls)] + _path(kind, access) + "?" + urlencode(query)
        headers = _headers(access, "")
        try:
            for line in reach.session.stream(
                "GET", url, headers=headers, deadline=OPEN_S, idle=SILENCE_S
            ):
                yield _change(call, line)
        except http.NotOk as e:
            _refuse(call, e.answer.status, _status(e.answer), e.answer.retry_after)
        except errors.Unavailable:
            self._line.turn += 1
            raise

    def close(self) -> None:
        self._line.close()

    def _ask(
        self,
        verb: str,
        kind: Kind,
        name: str = "",
        *,
        body: Optional[Object] = None,
        query: Optional[Mapping[str, str]] = None,
        status: bool = False,
        deadline: float,
    ) -> tuple[_Call, http.Answer]:
        access = self._access()
        reach = self._line.reach(access)
        call = _call(verb, kind, name, access, status=status)
        path = _path(kind, access, name, status=status)
        path += "?" + urlencode(query) if query else ""
        content = json.dumps(body).encode() if body is not None else None
        # JSON is YAML: an apply needs no YAML library.
        form = "application/apply-patch+yaml" if verb == "patch" else "application/json"
        headers = _headers(access, form if content else "")

        def once(url: str, seconds: float) -> http.Answer:
            try:
                answer = reach.session.request(
                    METHODS[verb], url + path, headers=headers, body=content, deadline=seconds
                )
            except errors.Untrusted:
                raise
            except errors.Unavailable as e:
                raise errors.Unavailable(e.message, remedy=e.remedy or access.unreached) from None
            if answer.status in AWAY:
                _refuse(call, answer.status, _status(answer), answer.retry_after)
            return answer

        return call, reach.servers.ask(once, deadline)


METHODS = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}


def _call(verb: str, kind: Kind, name: str, access: Access, *, status: bool = False) -> _Call:
    resource = kind.value.rsplit("/", 1)[-1] + ("/status" if status else "")
    return _Call(verb, resource, name, access)


def _path(kind: Kind, access: Access, name: str = "", *, status: bool = False) -> str:
    path = kind.value.format(namespace=access.namespace)
    if not access.namespace:
        path = kind.value.replace("namespaces/{namespace}/", "")
    return path + (f"/{name}" if name else "") + ("/status" if status else "")


def _headers(access: Access, form: str) -> Mapping[str, str]:
    token = {"Authorization": f"Bearer {access.token.reveal()}"}
    return {**token, "Content-Type": form} if form else token


def _object(call: _Call, answer: http.Answer, *, gone: bool = False) -> Mapping[str, Any]:
    if answer.status >= BAD_REQUEST:
        if answer.status == NOT_FOUND and gone:
            raise errors.Conflict(f"cannot {call}: it is gone")
        _refuse(call, answer.status, _status(answer), answer.retry_after)
    value = answer.json()
    if not isinstance(value, dict):
        raise errors.Unavailable(f"cannot use the answer of {answer.origin}: no object")
    return value


def _status(answer: http.Answer) -> Mapping[str, Any]:
    """The `kind: Status` of a refusal; {} when something else answered."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and value.get("kind") == "Status" else {}


def _is_about(answer: http.Answer, name: str) -> bool:
    """Whether a 404 means this very object, and not its namespace or its kind."""
    details = _status(answer).get("details")
    return isinstance(details, dict) and details.get("name") == name


def _change(call: _Call, line: bytes) -> Change:
    try:
        event = json.loads(line)
        kind, thing = str(event["type"]), dict(event["object"])
    except (ValueError, KeyError, TypeError) as e:
        raise errors.Unavailable(f"cannot {call}: not an event ({type(e).__name__})") from None
    if kind == "ERROR":
        _refuse(call, int(thing.get("code") or BROKEN), thing, None)
    return Change(kind, thing)


def _refuse(
    call: _Call, code: int, status: Mapping[str, Any], retry_after: Optional[float]
) -> NoReturn:
    """What an answer of 400 and above, or an ERROR event of a watch, means."""
    text = str(status.get("message") or f"status {code}")
    # Before these words the server names object, policy and binding, which may fill the quote.
    said = errors.quoted(text.partition("denied request: ")[2] or text)
    if code == UNAUTHORIZED:
        message = f"cannot {call}: the API server refuses the token"
        raise errors.Unauthenticated(
            message, generation=call.access.generation, remedy=call.access.token_remedy
        )
    if code == FORBIDDEN and _is_rbac(text):
        raise errors.Forbidden(
            f"cannot {call}: no right to {call.verb} {call.resource} "
            f"for {call.access.account} {call.where}",
            remedy=call.access.remedy,
        )
    if code in (CONFLICT, GONE):
        raise errors.Conflict(f"cannot {call}: {said}")
    if code in (TIMEOUT, THROTTLED) or code >= BROKEN:
        raise errors.Unavailable(f"cannot {call}: {said}", retry_after=retry_after)
    if code == NOT_FOUND:
        _missing(call, status)
    raise errors.Rejected(f"cannot {call}: {said}")


def _is_rbac(text: str) -> bool:
    """Admission, quotas and ending namespaces are 403 as well, with words of their own."""
    return " cannot " in text and " resource " in text and "denied" not in text


def _missing(call: _Call, status: Mapping[str, Any]) -> NoReturn:
    details = status.get("details")
    if isinstance(details, dict) and details.get("kind") == "namespaces":
        raise errors.Rejected(
            f"cannot {call}: namespace {call.access.namespace} does not exist",
            remedy=call.access.remedy,
        )
    raise errors.Rejected(
        f"cannot {call}: the API server does not know {call.resource}",
        remedy=f"install Istio's CRDs, or mend {call.access.server_name}",
    )
