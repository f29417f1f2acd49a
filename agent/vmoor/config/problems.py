"""Problems of a configuration as values, and how they are told.

A message never shows the value of a key that is marked x-masked in the schema: somebody may
have written the secret where the path of its file belongs.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Union

from vmoor.errors import quoted

Where = tuple[Union[str, int], ...]  # the keys and indices that lead to a value

SHOWN_LIMIT = 60  # of a wrong value: enough to find it again


class Problem(NamedTuple):
    """One line for people; line 0 = the file as a whole."""

    file: str
    line: int
    words: str

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {self.words}" if self.line else f"{self.file}: {self.words}"
        )


class Finding(NamedTuple):
    """A problem of a value whose place in the files is not looked up yet.

    `at` leads to the key that is wrong; `missing` means that `at` is the mapping that lacks one.
    """

    at: Where
    words: str
    missing: bool = False


def dotted(where: Where) -> str:
    """services.web.checks[0]; keys that are no plain words stand in brackets."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(quoted(part))}]"
    return text


def about(where: Where, words: str) -> str:
    """The words, after the path of what they are about."""
    path = dotted(where)
    return f"{path}: {words}" if path else words


def shown(value: Any, text: str = "") -> str:
    """A wrong value as its author knows it; `text` is how it stands in the file."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if value is None:
        return "nothing"
    if not isinstance(value, str):
        return text or json.dumps(value)
    line = re.sub(r"//[^/@\s]*@", "//***@", quoted(value))  # a password in a URL
    return f"'{line}'" if len(line) <= SHOWN_LIMIT else f"'{line[: SHOWN_LIMIT - 1]}…'"


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was most likely meant, "" when there is none."""
    folded = {k.lower().replace("-", "_"): k for k in known}
    key = word.lower().replace("-", "_")
    found = difflib.get_close_matches(key, folded, n=1)
    return folded[found[0]] if found else ""


def listed(words: Sequence[str], last: str = "or") -> str:
    """a, b or c"""
    if len(words) < 2:  # noqa: PLR2004 - one word needs no "or"
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
