"""The settings by which the capture rules were last set, kept by root's hook for itself.

A drop-in that is broken must not take the VM out of the mesh at the proxy's next start: the agent
goes on with the configuration that it last accepted, and so does the hook. What is kept is checked
like the configuration: neither its file nor a value is believed for having been written here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from vmoor import proxyunit
from vmoor.proxyunit import settings, trusted


def load(
    tell: Callable[[str], object],
    folder: Path = settings.FOLDER,
    file: Path = Path(proxyunit.KEPT),
) -> settings.Settings:
    """The configuration's, else those kept. Raises settings.Unusable without either."""
    try:
        return settings.load(tell, folder)
    except settings.Unusable as broken:
        try:
            found = _read(file)
        except (settings.Unusable, trusted.Untrusted) as e:
            raise settings.Unusable(f"{broken}; no settings of an earlier start: {e}") from broken
        tell(f"the capture rules are set as they last were, because of {folder}: {broken}")
        return found


def _read(file: Path) -> settings.Settings:
    trusted.check(str(file))
    content = settings.parsed(file)
    if not content:  # cut short; as a configuration it would mean the defaults
        raise settings.Unusable(f"{file} is empty")
    return settings.settle(content)


def keep(
    tell: Callable[[str], object], found: settings.Settings, file: Path = Path(proxyunit.KEPT)
) -> None:
    """After the rules are set. Not being able to is told, and no reason to take them away."""
    temporary = Path(f"{file}.new")
    try:
        file.parent.mkdir(exist_ok=True)
        file.parent.chmod(0o755)
        with temporary.open("w", encoding="utf-8") as opened:
            json.dump(_as_configured(found), opened)
            opened.flush()
            os.fsync(opened.fileno())  # a machine that loses power needs it at its next start
        temporary.chmod(0o644)
        temporary.replace(file)
    except OSError as e:
        tell(f"cannot keep the settings of the capture rules: {e}")


def _as_configured(found: settings.Settings) -> Mapping[str, Any]:
    """What settings.settle makes `found` of."""
    return {
        "interception": {
            "mode": found.mode,
            "dns_capture": found.dns_capture,
            "ipv6": found.ipv6,
            "exclude": {
                "inbound_ports": found.inbound_ports,
                "outbound_ports": found.outbound_ports,
                "cidrs": found.cidrs,
            },
        },
        "proxy": {"pilot_agent": found.pilot_agent},
    }
