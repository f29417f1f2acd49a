"""The Consul agent of this VM, by its HTTP API (tested with 1.8.7).

What is so is read from /v1/agent/services and /v1/agent/checks: the agent's own truth, there
without any server, but they do not block. *When* to read it tells a blocking query
(https://developer.hashicorp.com/consul/api-docs/features/blocking), which goes by the servers.
/v1/health/node/NODE does not wake for a service without checks and /v1/catalog/node/NODE not for
a check (both seen); /v1/internal/ui/node/NODE, which Consul's own UI blocks on, wakes for both,
4 to 11 ms after the change. When it cannot be asked, the rest still works: by looking again.

An agent that lost its servers holds a request for 7 s (rpc_hold_timeout) before its 500. One whose
server went silent holds even its own truth back, until it gives that server up: 34 s were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from vmoor import errors
from vmoor.adapters import http
from vmoor.config.settings import ConsulSource
from vmoor.model import catalog
from vmoor.model.catalog import Declared, Said
from vmoor.model.secret import Secret
from vmoor.ports import Files, Turn

T = TypeVar("T")

DEADLINE_S = 5.0  # for what the agent answers by itself
FIRST_S = 2.0  # for a query that has nothing to wait for: servers answer it in milliseconds
WAIT_S = 60
# Consul adds up to a 16th to the wait, and holds a request while it looks for a server.
BLOCKED_S = WAIT_S * 17 / 16 + 10.0

_OK, _FORBIDDEN = 200, 403


class ConsulAgent:
    """For one thread, but for `end`: requests follow each other on one kept connection."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._session = http.Session()

    def end(self) -> None:
        self._session.end()

    def close(self) -> None:
        self._session.close()

    def node(self, source: ConsulSource) -> str:
        """The agent's name of this VM. Raises Unavailable, Forbidden or LocalFault."""
        answer = self._get(source, "/v1/agent/self", DEADLINE_S)
        return _read(answer, lambda content: str(content["Config"]["NodeName"]))

    def turn(self, source: ConsulSource, node: str, index: int) -> Turn:
        """Waits until something of the node is no longer as at `index`, 0 = does not wait."""
        path = f"/v1/internal/ui/node/{quote(node, safe='')}"
        query = f"?index={index}&wait={WAIT_S}s" if index else ""
        answer = self._get(source, path + query, BLOCKED_S if index else FIRST_S)
        text = answer.headers.get("X-Consul-Index", "")
        new = int(text) if text.isdecimal() and len(text) < 20 else 0  # noqa: PLR2004 - 64 bit
        checks = _read(answer, lambda content: catalog.said(content["Checks"] or ()))
        # Consul's rule: an index that went backwards is to be thrown away.
        return Turn(new if new >= index else 0, tuple(c for c in checks if not c.service))

    def declared(self, source: ConsulSource) -> tuple[Sequence[Declared], Sequence[Said]]:
        """The services and the checks of the agent itself."""
        services = self._get(source, "/v1/agent/services", DEADLINE_S)
        checks = self._get(source, "/v1/agent/checks", DEADLINE_S)
        return (
            _read(services, catalog.declared),
            _read(checks, lambda answer: catalog.said(answer.values())),
        )

    def _get(self, source: ConsulSource, path: str, deadline: float) -> http.Answer:
        url = source.address.rstrip("/") + path
        answer = self._session.request(
            "GET", url, headers=self._headers(source), deadline=deadline
        )
        if answer.status == _OK:
            return answer
        said = errors.quoted(answer.body.decode(errors="replace"))
        words = f"cannot read {path.partition('?')[0]} of {answer.origin}: {answer.status} {said}"
        if answer.status == _FORBIDDEN:
            raise errors.Forbidden(
                words,
                remedy="sources.consul.token_file needs a token with agent, node and service read",
            )
        raise errors.Unavailable(words)

    def _headers(self, source: ConsulSource) -> Mapping[str, str]:
        if not source.token_file:
            return {}
        token = Secret(
            (self._files.read(source.token_file) or b"").decode(errors="replace").strip()
        )
        if not token:
            # Without a token Consul shows nothing, which is not the same as nothing there.
            raise errors.LocalFault(
                f"cannot read Consul's token: {source.token_file} is missing or empty",
                remedy="write the token into it, readable by user vmoor",
            )
        return {"X-Consul-Token": token.reveal()}


def _read(answer: http.Answer, parse: Callable[[Any], T]) -> T:
    try:
        return parse(answer.json())
    except (AttributeError, KeyError, TypeError):
        raise errors.Unavailable(
            f"cannot use the answer of {answer.origin}: not a Consul agent's",
            remedy="sources.consul.address must be the agent's HTTP API",
        ) from None
