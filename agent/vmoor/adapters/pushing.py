"""Says how a service is to the agent's socket for it, as an application would."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
from pathlib import Path

from vmoor import ttlunit
from vmoor.errors import Forbidden, LocalFault, Unavailable
from vmoor.model.ttl import SIZE_LIMIT

PATIENCE_S = 2.0  # for an agent that has not read what was said before


def push(service: str, message: str, folder: str = ttlunit.FOLDER) -> None:
    """Too long a message is cut off. Raises LocalFault, Forbidden, Unavailable."""
    path = f"{folder}/{service}/{ttlunit.ENTRY}"
    content = message.encode("utf-8", "replace")[:SIZE_LIMIT]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.settimeout(PATIENCE_S)
        try:
            link.connect(path)
            link.send(content)
        except FileNotFoundError as e:
            raise _missing(service, folder) from e
        except PermissionError as e:
            raise _forbidden(service, folder) from e
        except (ConnectionError, socket.timeout) as e:
            raise Unavailable(
                f"cannot push for {service}: the agent does not listen",
                remedy="systemctl start vmoor, and push again",
            ) from e
        except OSError as e:
            raise LocalFault(f"cannot push for {service}: {path}: {e.strerror}") from e


def _missing(service: str, folder: str) -> LocalFault:
    try:
        known = sorted(os.listdir(folder))  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        message = f"cannot push for {service}: the agent does not run"
        return LocalFault(message, remedy="systemctl start vmoor")
    except OSError:
        known = []
    if service in known:
        message = f"cannot push for {service}: the agent has not listened yet"
        return LocalFault(message, remedy="see vmoor status")
    there = f"those with one: {', '.join(known)}" if known else "no service has one"
    return LocalFault(
        f"cannot push for {service}: it has no ttl check in force, {there}",
        remedy=f"add {{ttl: 30s}} to services.{service}.checks, then systemctl reload vmoor",
    )


def _forbidden(service: str, folder: str) -> Forbidden:
    group = ""
    with contextlib.suppress(OSError, KeyError):
        group = grp.getgrgid(Path(folder, service).stat().st_gid).gr_name
    message = f"cannot push for {service}: only root may"
    if group in ("", "root", ttlunit.OWNER):
        remedy = f"add `group: GROUP` to the ttl check in services.{service}, one of yours"
        return Forbidden(message, remedy=remedy)
    message += f", and members of group {group}"
    return Forbidden(message, remedy=f"usermod --append --groups {group} USER, then log in anew")
