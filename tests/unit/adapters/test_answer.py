"""What a server says, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

import pytest
from vmoor.adapters import answer as answer_module
from vmoor.adapters.answer import BODY_LIMIT, HEAD_LIMIT, Answer, request
from vmoor.model.service import HttpProbe

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def fed(text: bytes, size: int, *, end: bool, method: str = "GET") -> tuple[object, int, bytes]:
    """Whether it is whole or what is wrong, the status, and the content."""
    answer = Answer(method)
    pieces = [text[at : at + size] for at in range(0, len(text), size)] + [b""] * end
    whole: Optional[object] = None
    try:
        for piece in pieces:
            whole = answer.feed(piece)
            if whole:
                break
    except ValueError as e:
        return str(e), answer.status, b""
    return whole, answer.status, answer.content() if whole else b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("text", "end", "whole", "status", "content"),
    [
        (OK + b"Content-Length: 2\r\n\r\nok", False, True, 200, b"ok"),
        (OK + b"CONTENT-LENGTH:2 \r\n\r\no", False, False, 200, b""),
        (OK + b"\r\nok", False, False, 200, b""),
        (OK + b"\r\nok", True, True, 200, b"ok"),
        (CHUNKED + b"3;x=y\r\n0\r\n\r\n2\r\nok\r\n0\r\n\r\n", False, True, 200, b"0\r\nok"),
        (CHUNKED + b"2\r\nok\r\n", False, False, 200, b""),
        (b"HTTP/1.1 204 No\r\n\r\n", False, True, 204, b""),
        (b"HTTP/1.1 100 Go on\r\n\r\n" + OK + b"Content-Length: 0\n\n", False, True, 200, b""),
        (OK + b"X-Content-Length: 0\r\n\r\n", False, False, 200, b""),
    ],
)
def test_pieces_of_any_size_are_the_same_answer(
    text: bytes, end: bool, whole: bool, status: int, content: bytes, size: int
) -> None:
    """TCP keeps no boundaries; the end is found by length, chunks, or the end of the stream."""
    said, seen, got = fed(text, size, end=end)
    assert (said, seen, got) == (whole, status, content)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it closed the connection without an answer"),
        (b"HTTP", "not HTTP: HTTP"),
        (b"\x16\x03\x01\x02\x00\n", "not HTTP: ?????"),
        (OK + b"X: y", "it closed the connection amid its headers"),
        (OK + b"Content-Length: 9\r\n\r\nok", "it closed the connection amid its answer"),
        (CHUNKED + b"2\r\nok\r\n", "it closed the connection amid its answer"),
        (b"HTTP/1.1 100\n\n" * 4000, "not HTTP: 100 Continue again and again"),
        (CHUNKED + b"-2\r\nok\r\n", "not HTTP: a chunk of -2"),
        (b"x" * (HEAD_LIMIT + 1), f"its headers have no end in {HEAD_LIMIT >> 10} KiB"),
    ],
)
def test_what_is_no_answer_is_told(text: bytes, words: str) -> None:
    """Quoted, and never taken for a good one."""
    assert fed(text, 1 << 20, end=True)[0] == words


def test_a_large_answer_is_not_waited_for() -> None:
    """What is beyond the limit is neither read nor missed."""
    head = OK + b"Content-Length: 2147483648\r\n\r\n"
    assert fed(head + b"x" * BODY_LIMIT, 1 << 12, end=False)[:2] == (True, 200)
    chunk = CHUNKED + b"7fffffff\r\nready" + b"x" * BODY_LIMIT
    whole, _, content = fed(chunk, 1 << 12, end=False)
    assert (whole, content[:5]) == (True, b"ready")


def test_head_has_no_body() -> None:
    """Whatever length it tells."""
    assert fed(OK + b"Content-Length: 9\r\n\r\n", 1 << 20, end=False, method="HEAD")[0] is True


@pytest.mark.parametrize(
    "probe",
    [
        HttpProbe("/a b", 80),
        HttpProbe("/a\r\nX: y", 80),
        HttpProbe("/", 80, headers={"X": "y\r\nZ: 1"}),
        HttpProbe("/", 80, headers={"X: y\nZ": "1"}),
    ],
)
def test_a_request_is_one_request(probe: HttpProbe) -> None:
    """Nothing in a path or header can add a line."""
    with pytest.raises(ValueError, match="not a "):
        request(probe, "127.0.0.1:80")


def test_many_small_chunks_are_read_once() -> None:
    """A server that sends a byte in each chunk costs no more than its bytes."""
    answer, seen = Answer("GET"), []
    answer.feed(CHUNKED)
    chunks = answer_module._chunks

    def counted(text: bytes, at: int) -> Iterator[tuple[int, int]]:
        for each in chunks(text, at):
            seen.append(each)
            yield each

    answer_module._chunks, before = counted, answer_module._chunks
    try:
        assert not any(answer.feed(b"1\r\nx\r\n") for _ in range(1000))
    finally:
        answer_module._chunks = before
    assert len(seen) <= 2 * 1000
