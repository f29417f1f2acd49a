"""What a configuration is right about, but this machine lacks: warnings of `vmoor check`.

Each may come later (a package, a unit that the same cloud-init text writes), so none is a problem.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Callable

from vmoor.adapters.metrics import PACKAGE
from vmoor.config.settings import Settings
from vmoor.errors import VmoorError
from vmoor.model.service import GrpcProbe, Service, TtlProbe

NOT_FOUND = "not-found"  # systemd's LoadState


def _load_state(name: str) -> str:
    # Needs jeepney, which an operator's own machine may lack.
    from vmoor.adapters import units  # noqa: PLC0415

    return units.load_state(name)


def lacking(settings: Settings, load_state: Callable[[str], str] = _load_state) -> Sequence[str]:
    """`load_state` raises VmoorError where no systemd runs: then nothing is said of units."""
    services = [*settings.services, *(settings.sources.sockets or ())]
    return [
        *_units(services, load_state),
        *_groups(services),
        *_programs(settings),
        *_libraries(services, settings.metrics_listen),
    ]


def _units(services: Sequence[Service], load_state: Callable[[str], str]) -> Iterator[str]:
    for service in services:
        try:
            if service.unit and load_state(service.unit) == NOT_FOUND:
                yield f"services.{service.name}: systemd knows no unit {service.unit}"
        except VmoorError:
            return


def _groups(services: Sequence[Service]) -> Iterator[str]:
    for service in services:
        for check in service.checks:
            probe = check.probe
            if isinstance(probe, TtlProbe) and probe.group and not _is_group(probe.group):
                yield (
                    f"services.{service.name}: there is no group {probe.group}: its members "
                    "could not push with `vmoor ttl`"
                )


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _programs(settings: Settings) -> Iterator[str]:
    programs = [("proxy.pilot_agent", settings.proxy.pilot_agent),
                ("proxy.envoy", settings.proxy.envoy)]  # fmt: skip
    if settings.sources.exec is not None:
        programs.append(("sources.exec", settings.sources.exec.command[0]))
    programs += [(f"hooks.{name}", command[0]) for name, command in settings.hooks.items()]
    for key, path in programs:
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116 - one call, no Path needed
        except OSError as e:
            yield f"{key}: {path}: {(e.strerror or str(e)).lower()}"
            continue
        if not (stat.S_ISREG(mode) and mode & 0o111):
            yield f"{key}: {path} is not an executable file"


def _libraries(services: Sequence[Service], metrics_listen: str) -> Iterator[str]:
    asked = [s.name for s in services if any(isinstance(c.probe, GrpcProbe) for c in s.checks)]
    if asked and importlib.util.find_spec("h2") is None:
        yield f"the grpc check of {', '.join(asked)} needs python3-h2: apt install python3-h2"
    if metrics_listen and importlib.util.find_spec("prometheus_client") is None:
        yield f"metrics.listen needs {PACKAGE}: apt install {PACKAGE}"
