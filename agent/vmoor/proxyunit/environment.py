"""proxy.env, as far as it may reach pilot-agent.

The file comes from the agent, which a compromise must not lead any further than to the proxy's
own user. So a key that is not known to be needed is refused; the two programs that the file may
name are checked before they run (`trusted`), whatever else it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

# Istio's documentation describes them; ISTIO_META_ and ISTIO_METAJSON_ are node metadata only.
ALLOWED = frozenset(
    (
        "INSTANCE_IP",
        "POD_NAME",
        "POD_NAMESPACE",
        "SERVICE_ACCOUNT",
        "TRUST_DOMAIN",
        "ISTIOD_SAN",
        "XDS_ROOT_CA",
        "CA_ROOT_CA",
        "PROV_CERT",
        "OUTPUT_CERTS",
        "CLOUD_PLATFORM",
        "ISTIO_BOOTSTRAP",
        "SECRET_GRACE_PERIOD_RATIO",
        "SECRET_GRACE_PERIOD_RATIO_JITTER",
        "DNS_FORWARD_PARALLEL",
        "DNS_FORWARD_TIMEOUT",
        "ISTIO_CPU_LIMIT",
    )
)
METADATA = re.compile(r"ISTIO_META(JSON)?_[A-Z0-9_]+")
# istiod would write a WorkloadEntry of its own beside ours.
REFUSED = frozenset(("ISTIO_META_AUTO_REGISTER_GROUP", "ISTIO_META_WORKLOAD_ENTRY"))
PILOT_AGENT, ENVOY = "VMOOR_PILOT_AGENT", "VMOOR_ENVOY"  # for the launcher, not passed on
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Refused(Exception):
    """proxy.env is not as it must be; the message names the line."""


@dataclass(frozen=True)
class Environment:
    pilot_agent: str
    envoy: str
    variables: Mapping[str, str]  # the whole environment of pilot-agent


def parse(text: str) -> Environment:
    """Raises Refused at the first line that is not permitted."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if line and not line.startswith("#"):
            key, value = _pair(line, f"proxy.env:{number}")
            if key in found:
                raise Refused(f"proxy.env:{number}: {key} stands there twice")
            found[key] = value
    for key in (PILOT_AGENT, ENVOY):
        if not found.get(key):
            raise Refused(f"proxy.env: {key} is missing")
    pilot_agent, envoy = found.pop(PILOT_AGENT), found.pop(ENVOY)
    # pilot-agent puts it over mesh.yaml, so that what runs is the binary that was checked.
    found["PROXY_CONFIG"] = json.dumps({"binaryPath": envoy})
    return Environment(pilot_agent, envoy, {"PATH": PATH, "LANG": "C.UTF-8", **found})


def _pair(line: str, where: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    if not equals:
        raise Refused(f"{where}: not KEY=VALUE")
    own = key in (PILOT_AGENT, ENVOY)
    if key in REFUSED or not (own or key in ALLOWED or METADATA.fullmatch(key)):
        raise Refused(f"{where}: the key {key[:60]!r} is not permitted")
    if any(ord(character) < ord(" ") for character in value):
        raise Refused(f"{where}: a control character in the value of {key}")
    return key, value
