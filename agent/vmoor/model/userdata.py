"""The cloud-init user-data that makes a fresh VM a member of the mesh; the same for the fleet.

No secret is in it. What differs from VM to VM, the SecretID's wrapping token, is filled in on the
VM by jinja, from the metadata of that very instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

CONFIGURATION = "/etc/vmoor/conf.d/10-mesh.yaml"
SECRET_ID = "/etc/vmoor/credentials/secret-id"  # noqa: S105 - a path
VAULT_CA = "/etc/vmoor/vault-ca.pem"
ORDER = "/etc/systemd/system/vmoor.service.d/10-{unit}.conf"
FETCHED = "/run/vmoor-fetched.deb"

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
# What YAML 1.1 takes for something else than text.
_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null"))
_JINJA = re.compile(r"\{[{%#]")


@dataclass(frozen=True)
class Pinned:
    """A package somewhere else: nothing but the file of this digest is installed."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Declared:
    """A service as the configuration declares it."""

    name: str
    port: int
    unit: str = ""
    http: str = ""  # path of a check

    def described(self) -> Mapping[str, Any]:
        return {
            "port": self.port,
            **({"unit": self.unit} if self.unit else {}),
            **({"checks": [{"http": self.http}]} if self.http else {}),
        }


@dataclass(frozen=True)
class Fleet:
    """What all VMs of one kind share."""

    vault: Sequence[str]  # addresses
    role_id: str
    mesh: str
    workload: Mapping[str, str]
    services: Sequence[Declared]
    wrapping_path: str = ""  # "" = the SecretID comes as it is
    secret_id_from: str = ""  # instance metadata, as a jinja expression; "" = it comes otherwise
    vault_ca: str = ""  # PEM
    package: str = "vmoor"  # a name that apt knows, or a file on the VM
    package_pinned: Optional[Pinned] = None
    sidecar: Optional[Pinned] = None
    apt_source: str = ""
    apt_key: str = ""


def text(fleet: Fleet) -> str:
    """The whole of it, from `## template: jinja` to the last line."""
    lines = ["## template: jinja", "#cloud-config", *map(_escaped, _before(fleet))]
    if fleet.secret_id_from:
        content = f'"{{{{ {fleet.secret_id_from} }}}}"'
        lines.append(f'  - {{path: {SECRET_ID}, permissions: "0600", content: {content}}}')
    lines += map(_escaped, [*_order(fleet), *_apt(fleet), *_install(fleet)])
    return "\n".join(lines) + "\n"


def _escaped(line: str) -> str:
    """Text that jinja leaves as it is."""
    return _JINJA.sub(lambda found: "{{ '" + found[0] + "' }}", line)


def _before(fleet: Fleet) -> Iterator[str]:
    """write_files up to the SecretID."""
    yield "write_files:"
    yield f"  - path: {CONFIGURATION}"
    yield "    content: |"
    for line in configuration(fleet).splitlines():
        yield f"      {line}"
    if fleet.vault_ca:
        yield f"  - path: {VAULT_CA}"
        yield from _block("    content", fleet.vault_ca)


def configuration(fleet: Fleet) -> str:
    """The agent's, as YAML."""
    return "".join(f"{key}: {_flow(value)}\n" for key, value in _settings(fleet).items())


def _settings(fleet: Fleet) -> Mapping[str, Any]:
    auth = {"method": "approle", "role_id": fleet.role_id}
    if fleet.wrapping_path:
        auth["secret_id_response_wrapping_path"] = fleet.wrapping_path
    vault: dict[str, Any] = {
        "address": fleet.vault[0] if len(fleet.vault) == 1 else list(fleet.vault)
    }
    if fleet.vault_ca:
        vault["ca_cert"] = VAULT_CA
    made: dict[str, Any] = {
        "vault": {**vault, "auth": auth},
        "mesh": fleet.mesh,
        "workload": dict(fleet.workload),
    }
    if fleet.services:  # none: a VM that only calls
        made["services"] = {service.name: service.described() for service in fleet.services}
    return made


def _order(fleet: Fleet) -> Iterator[str]:
    """The application stops after the agent, which takes the VM out of the mesh first."""
    units = [service.unit for service in fleet.services if service.unit]
    for unit in dict.fromkeys(units):
        path = _flow(ORDER.format(unit=unit))
        yield f'  - {{path: {path}, content: "[Unit]\\nAfter={unit}\\n"}}'


def _apt(fleet: Fleet) -> Iterator[str]:
    if not fleet.apt_source:
        return
    yield "apt:"
    yield "  preserve_sources_list: true"
    yield "  sources:"
    yield "    vmoor:"
    yield f"      source: {json.dumps(fleet.apt_source)}"
    if fleet.apt_key:
        yield from _block("      key", fleet.apt_key)


def _install(fleet: Fleet) -> Iterator[str]:
    local = fleet.package.startswith("/")
    by_name = not local and fleet.package_pinned is None
    if by_name and fleet.sidecar is None:
        yield f"packages: [{fleet.package}]"
    elif not local or fleet.sidecar:
        yield "package_update: true"
    yield "runcmd:"
    # It captures the same traffic; the package's unit must never run beside vmoor's.
    yield "  - [systemctl, mask, --now, istio.service]"
    if fleet.sidecar:
        skip = "! dpkg -s istio-sidecar 2>/dev/null | grep -q 'ok installed' || exit 0"
        yield from _script([skip, *_fetch(fleet.sidecar)])
    if fleet.package_pinned:
        yield from _script(_fetch(fleet.package_pinned))
    elif local or fleet.sidecar:
        yield from _script([f"apt-get install -y {fleet.package}"])


def _fetch(pinned: Pinned) -> Sequence[str]:
    return [
        f"curl -fsSLo {FETCHED} '{pinned.url}'",
        f"echo '{pinned.sha256}  {FETCHED}' | sha256sum -c",
        f"apt-get install -y {FETCHED}",
    ]


def _script(lines: Sequence[str]) -> Iterator[str]:
    yield "  - - sh"
    yield "    - -euc"
    yield from _block("    -", "\n".join(["export DEBIAN_FRONTEND=noninteractive", *lines]))


def _block(key: str, content: str) -> Iterator[str]:
    """A literal block scalar: `key: |` or `- |`, and the text below."""
    bare = key.lstrip()
    yield f"{key} |" if bare == "-" else f"{key}: |"
    indent = " " * (len(key) - len(bare) + 2)
    for line in content.strip().splitlines():
        yield f"{indent}{line}".rstrip()


def _flow(value: Any) -> str:
    """One line of YAML that reads like one written by hand."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)
