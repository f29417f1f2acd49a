from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from vmoor.cli.lacking import lacking
from vmoor.config.load import load
from vmoor.errors import Unavailable

from tests.unit.config.folders import good, write


def said(tmp_path: Path, states: dict[str, str], **more: Any) -> Sequence[str]:
    programs = {"pilot_agent": "/bin/true", "envoy": "/bin/true"}
    write(tmp_path, **{"10": good(proxy=programs, **more)})
    return lacking(load(tmp_path).settings, lambda name: states.get(name, "not-found"))


def services(**more: Any) -> dict[str, Any]:
    return {"web": {"port": 8080, **more}}


def test_a_unit_that_systemd_does_not_know(tmp_path: Path) -> None:
    """A typing error in a unit's name would wait for ever; told with service and unit."""
    web = services(unit="wbe.service")
    want = "services.web: systemd knows no unit wbe.service"
    assert said(tmp_path, {}, services=web) == [want]
    assert said(tmp_path, {"wbe.service": "loaded"}, services=web) == []
    assert said(tmp_path, {"wbe.service": "masked"}, services=web) == []


def test_without_systemd_nothing_is_said_of_units(tmp_path: Path) -> None:
    """A container, an image being built."""

    def away(_: str) -> str:
        raise Unavailable("cannot reach the bus")

    programs = {"pilot_agent": "/bin/true", "envoy": "/bin/true"}
    write(tmp_path, **{"10": good(proxy=programs, services=services(unit="wbe.service"))})
    assert lacking(load(tmp_path).settings, away) == []


def test_a_group_that_does_not_exist(tmp_path: Path) -> None:
    """Nobody could push."""
    for group, count in (("nobody-has-this", 1), ("root", 0)):
        web = services(checks=[{"ttl": "30s", "group": group}])
        found = said(tmp_path, {}, services=web)
        assert len(found) == count
        assert all("there is no group nobody-has-this" in line for line in found)


def test_programs_that_are_not_there_or_no_programs(tmp_path: Path) -> None:
    """Those of the sidecar, the command of a source, and that of a hook."""
    (tmp_path / "list").write_text("#!/bin/sh\n")
    for command, words in (
        ("/nowhere/list", "sources.exec: /nowhere/list: no such file or directory"),
        (str(tmp_path / "list"), f"sources.exec: {tmp_path}/list is not an executable file"),
    ):
        sources = {"exec": {"command": [command], "period": "1m"}}
        assert said(tmp_path, {}, services=services(), sources=sources) == [words]
        hook = words.replace("sources.exec", "hooks.drained")
        assert said(tmp_path, {}, services=services(), hooks={"drained": [command]}) == [hook]


def test_a_grpc_check_wants_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is right, and yet no look could be made: told with the package."""
    web = services(checks=[{"grpc": True}])
    assert said(tmp_path, {}, services=web) == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    (warning,) = said(tmp_path, {}, services=web)
    assert warning == "the grpc check of web needs python3-h2: apt install python3-h2"


def test_metrics_want_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told with the package: all else runs without it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    metrics = {"listen": "127.0.0.1:9478"}
    (warning,) = said(tmp_path, {}, services=services(), metrics=metrics)
    package = "python3-prometheus-client"
    assert warning == f"metrics.listen needs {package}: apt install {package}"
