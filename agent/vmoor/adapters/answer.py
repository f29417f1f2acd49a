"""One HTTP/1.1 request, and whether what comes back answers it.

http.client would cost more than the whole rest of a look (0.2 ms, most of it in the e-mail
parser), and reads only from sockets that block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Optional

from vmoor.adapters import looks
from vmoor.errors import quoted
from vmoor.model.health import Probe
from vmoor.model.service import HttpProbe

HEAD_LIMIT = 64 << 10  # bytes
CONTINUES = 8
CHUNK_LINE = 1024  # bytes of a chunk's size and extensions
BODY_LIMIT = 64 << 10  # bytes; what is beyond is not waited for
# RFC 9112 section 4; lines may end by a bare LF, section 2.2.
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?:[ \r][^\n]*)?\n")
_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r?\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[^\n]*\bchunked[ \t]*\r?\n", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\n]*\n")  # RFC 9112 section 7.1
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_BREAKS = re.compile(r"[\r\n\0]")
_CONTINUE, _NO_CONTENT, _NOT_MODIFIED = 100, 204, 304


def request(probe: HttpProbe, authority: str) -> bytes:
    """Raises ValueError for a path or header that would be more than one."""
    if _UNSAFE.search(probe.path):
        raise ValueError(f"not a path: {quoted(probe.path)}")
    named = any(name.lower() == "host" for name in probe.headers)
    host: Mapping[str, str] = {} if named else {"Host": authority}
    lines = [f"{probe.method} {probe.path} HTTP/1.1"]
    headers = {**host, "User-Agent": "vmoor", "Connection": "close", **probe.headers}
    for name, value in headers.items():
        if _UNSAFE.search(name) or _BREAKS.search(value):
            raise ValueError(f"not a header: {quoted(name)}")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


class Answer:
    """What a server says, piece by piece."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._got = b""
        self._continued = 0
        self._parsed = 0  # how far of the chunks
        self._body: int = 0  # where it begins, 0 = not known yet
        self.status = 0

    def feed(self, data: bytes) -> bool:
        """True = nothing more is needed; no data = the end of the stream.

        Raises ValueError for what is no HTTP.
        """
        seen = max(0, len(self._got) - 3)
        self._got += data
        while not self._body and self._head(seen) and not self._body:
            seen = 0  # that was one of 100
        if not self._body:
            if not data:
                raise ValueError(self._cut())
            return False
        if self._whole():
            return True
        if not data and (self._is_chunked() or self._length() is not None):
            raise ValueError("it closed the connection amid its answer")
        return not data

    def content(self) -> bytes:
        got, at = self._got, self._body
        if not self._is_chunked():
            return got[at:]
        return b"".join(got[begin : begin + length] for begin, length in _chunks(got, at))

    def _head(self, seen: int) -> bool:
        """Whether one is there. One of 100 is taken away: the next is the answer."""
        if self._got.find(b"\n", 0, HEAD_LIMIT) >= 0 and not _STATUS.match(self._got):
            raise ValueError(f"not HTTP: {_line(self._got)}")
        end = _HEAD_END.search(self._got, seen)
        if end is None or end.end() > HEAD_LIMIT:
            if len(self._got) > HEAD_LIMIT:
                raise ValueError(f"its headers have no end in {HEAD_LIMIT >> 10} KiB")
            return False
        status = _STATUS.match(self._got)
        self.status = int(status[1]) if status else 0
        if self.status != _CONTINUE:
            self._body = end.end()
            return True
        self._got = self._got[end.end() :]
        self._continued += 1
        if self._continued > CONTINUES:
            raise ValueError("not HTTP: 100 Continue again and again")
        return True

    def _cut(self) -> str:
        if not self._got:
            return "it closed the connection without an answer"
        if _STATUS.match(self._got):
            return "it closed the connection amid its headers"
        return f"not HTTP: {_line(self._got)}"

    def _whole(self) -> bool:
        got = len(self._got) - self._body
        if self._method == "HEAD" or self.status in (_NO_CONTENT, _NOT_MODIFIED):
            return True
        if got >= BODY_LIMIT:
            return True
        if self._is_chunked():
            return self._is_last()
        length = self._length()
        return length is not None and got >= length

    def _is_last(self) -> bool:
        """Whether the last chunk has come; goes on where it was."""
        at = self._body + self._parsed
        for begin, length in _chunks(self._got, at):
            if not length:
                return True
            if begin + length + 2 <= len(self._got):
                self._parsed = begin + length + 2 - self._body
        return False

    def _length(self) -> Optional[int]:
        length = _LENGTH.search(self._got, 0, self._body)
        return int(length[1]) if length else None

    def _is_chunked(self) -> bool:
        return _CHUNKED.search(self._got, 0, self._body) is not None


class Exchange:
    """One look: `request` is what to send. Raises ValueError for a probe that can't be sent."""

    def __init__(self, probe: HttpProbe, host: str, began: float) -> None:
        self.request = request(probe, looks.authority(host, probe.port))
        self._probe = probe
        self._began = began
        self._answer = Answer(probe.method)

    def feed(self, data: bytes) -> Optional[Probe]:
        """As Answer.feed; None = go on reading."""
        answer, probe = self._answer, self._probe
        if not answer.feed(data):
            return None
        low, high = probe.status
        if not low <= answer.status <= high:
            return Probe(passed=False, words=f"{answer.status}, want {low}-{high}")
        if probe.body and probe.body.encode(errors="replace") not in answer.content():
            words = f"{answer.status}, but no {quoted(probe.body)!r} in the answer"
            return Probe(passed=False, words=words)
        return Probe(passed=True, words=f"{answer.status} in {looks.ms(self._began)}")


def _chunks(text: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where each begins and how long it is, as far as has come. Raises ValueError."""
    while text.find(b"\n", at, at + CHUNK_LINE) >= 0:
        size = _CHUNK.match(text, at)
        if size is None:
            raise ValueError(f"not HTTP: a chunk of {_line(text[at : at + CHUNK_LINE])}")
        length = int(size[1], 16)
        yield size.end(), length
        if not length:
            return
        at = size.end() + length + 2


def _line(text: bytes) -> str:
    return quoted(text[:200].split(b"\n", 1)[0].strip(b"\r").decode("latin-1"))
