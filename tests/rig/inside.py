"""Sockets of this process inside a network namespace.

setns(2) moves one thread, and a socket stays where it was made: so it is called in threads that
do nothing else, never in the caller's. (os.setns came with Python 3.12.)
"""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, TypeVar

import requests

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)


def enter(netns_path: Path) -> None:
    """Move the calling thread, for the rest of its life."""
    with netns_path.open() as netns:
        if _libc.setns(netns.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(netns_path))


def call(netns_path: Path, function: Callable[[], T]) -> T:
    """Call function in a thread inside the namespace."""
    with ThreadPoolExecutor(1, initializer=enter, initargs=(netns_path,)) as thread:
        return thread.submit(function).result()


def request(
    netns_path: Path, method: str, url: str, *, ca: Path, timeout: float = 10.0, **more: Any
) -> requests.Response:
    """One HTTP(S) request from inside the namespace; the keywords are those of requests."""

    def send() -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # or REQUESTS_CA_BUNDLE would override verify
            return session.request(method, url, verify=str(ca), timeout=timeout, **more)

    return call(netns_path, send)
