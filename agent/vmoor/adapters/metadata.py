"""The metadata services of clouds, as far as they announce the end of this VM.

Their address is link-local and the agent's group is spared from the capture, so it is asked past
the proxy. http.Session follows no redirect and reads no proxy from the environment. What cannot be
had, or is not understood, is Unavailable and nothing else: no credential of ours is in doubt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable, Optional
from urllib.parse import quote

from vmoor.adapters import http
from vmoor.errors import Unavailable, quoted
from vmoor.model import notice
from vmoor.model.notice import Notice
from vmoor.model.secret import Secret
from vmoor.ports import Metadata

DEADLINE_S = 2.0  # on the VM's own host, it takes milliseconds
LONGEST = 64 << 10  # bytes; 100 scheduled events have some 40 KB
AWS_TTL_S = 21600  # the longest that IMDSv2 gives
GCE_WAIT_S = 60
AZURE_S = 10.0  # no longer than a VM waits for its cloud's word before it moors (controllers)
_TOKEN = re.compile(r"[!-~]{1,1024}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")  # of an Azure VM: 64 at most
_OK, _UNAUTHORIZED, _NOT_FOUND = 200, 401, 404


class _Service:
    """For one thread."""

    period = 5.0  # seconds between two looks

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = http.Session(limit=LONGEST)

    def close(self) -> None:
        self._session.close()

    def _ask(
        self, path: str, headers: Mapping[str, str], *, method: str = "GET",
        deadline: float = DEADLINE_S,
    ) -> http.Answer:  # fmt: skip
        return self._session.request(method, self._url + path, headers=headers, deadline=deadline)

    def _unusable(self, answer: http.Answer, path: str) -> Unavailable:
        return Unavailable(
            f"cannot read {path.partition('?')[0]} of {answer.origin}: status {answer.status}"
        )

    def _judged(self, judge: Callable[[], Optional[Notice]]) -> Optional[Notice]:
        try:
            return judge()
        except (ValueError, RecursionError) as e:
            raise Unavailable(f"cannot use the metadata of {self._url}: {quoted(e)}") from None


class Aws(_Service):
    """EC2's, by IMDSv2; every 5 s is what AWS recommends for spot notices."""

    _token = Secret("")

    def look(self) -> Optional[Notice]:
        spot = self._read("/latest/meta-data/spot/instance-action")
        target = self._read("/latest/meta-data/autoscaling/target-lifecycle-state")
        return self._judged(lambda: notice.of_aws(spot, target))

    def _read(self, path: str) -> Optional[str]:
        """None = there is no such thing now."""
        for _ in range(2):
            if not self._token.reveal():
                self._token = self._new_token()
            answer = self._ask(path, {"X-aws-ec2-metadata-token": self._token.reveal()})
            if answer.status != _UNAUTHORIZED:
                break
            self._token = Secret("")
        if answer.status == _NOT_FOUND:
            return None
        if answer.status != _OK:
            raise self._unusable(answer, path)
        return _text(answer)

    def _new_token(self) -> Secret:
        path = "/latest/api/token"
        ttl = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TTL_S)}
        answer = self._ask(path, ttl, method="PUT")
        token = _text(answer).strip()
        if answer.status != _OK or not _TOKEN.fullmatch(token):
            raise self._unusable(answer, path)
        return Secret(token)


class Gce(_Service):
    """Compute Engine's: the first look answers at once, the next ones wait for a change."""

    period = 1.0  # a server that answers each wait at once must not be asked in a busy loop
    _etag = ""

    def look(self) -> Optional[Notice]:
        path, deadline = "/computeMetadata/v1/instance/preempted", DEADLINE_S
        etag, self._etag = self._etag, ""
        if etag:
            path += f"?wait_for_change=true&timeout_sec={GCE_WAIT_S}&last_etag={quote(etag)}"
            deadline = GCE_WAIT_S + 10.0
        answer = self._ask(path, {"Metadata-Flavor": "Google"}, deadline=deadline)
        if answer.status != _OK or answer.headers.get("Metadata-Flavor") != "Google":
            raise self._unusable(answer, path)
        found = self._judged(lambda: notice.of_gce(_text(answer)))
        self._etag = answer.headers.get("ETag", "")[:128]
        return found


class Azure(_Service):
    """The first request of a VM's life for its events may take two minutes, as Azure says: until
    then it fails, and nobody waits for it.
    """

    _name = ""

    def look(self) -> Optional[Notice]:
        if not self._name:
            path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            name = self._get(path).strip()
            if not _NAME.fullmatch(name):
                raise Unavailable(f"cannot use the VM's name of {self._url}: {quoted(name)}")
            self._name = name
        scheduled = self._get("/metadata/scheduledevents?api-version=2020-07-01", AZURE_S)
        return self._judged(lambda: notice.of_azure(scheduled, self._name))

    def _get(self, path: str, deadline: float = DEADLINE_S) -> str:
        answer = self._ask(path, {"Metadata": "true"}, deadline=deadline)
        if answer.status != _OK:
            raise self._unusable(answer, path)
        return _text(answer)


_SERVICES: Mapping[str, Callable[[str], Metadata]] = {"aws": Aws, "gce": Gce, "azure": Azure}


def of(cloud: str, url: str) -> Metadata:
    """The metadata service of this cloud at this URL."""
    return _SERVICES[cloud](url)


def _text(answer: http.Answer) -> str:
    return answer.body.decode(errors="replace")
