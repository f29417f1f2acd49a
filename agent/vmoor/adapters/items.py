"""The objects of a Kubernetes list, each as soon as it is there.

The API server sends a list while it makes it, which takes a second for 30 000 entries: they are
read meanwhile, in the memory of one of them.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

from vmoor.errors import LocalFault
from vmoor.model.entry import Object

LIMIT = 4 << 20  # characters without a whole object; etcd keeps none over 1.5 MB
_START = re.compile(r'"items"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
_END = re.compile(r"\s*\]")
_object: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode


class Items:
    """`take` is called with each. Raises LocalFault for what is no list."""

    def __init__(self, take: Callable[[Object], None]) -> None:
        self._take = take
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""  # what is not read yet
        self._inside = False

    def feed(self, piece: bytes) -> None:
        text, at = self._text + self._decode(piece), 0
        if not self._inside:
            start = _START.search(text)
            self._inside, at = start is not None, start.end() if start else 0
        while self._inside:
            between = _BETWEEN.match(text, at)
            at = between.end() if between else at
            try:
                thing, at = _object(text, at)
            except ValueError:  # not all of it is there, or the list has ended
                break
            except RecursionError:
                raise LocalFault("cannot read a list: an object is nested too deeply") from None
            if not isinstance(thing, dict):
                raise LocalFault("cannot read a list: an item is no object")
            self._take(thing)
        self._text = text[at:]
        if len(self._text) > LIMIT:
            raise LocalFault("cannot read a list: it has an object without an end")

    def end(self) -> None:
        """Raises LocalFault when the list had no end."""
        if not self._inside or not _END.match(self._text):
            raise LocalFault("cannot read a list: its end is missing")
