"""The cloud-init user-data that makes a fresh VM a member of the mesh; the same for the fleet.

No secret is in it. What differs from VM to VM, the SecretID's wrapping token, is filled in on the
VM by jinja, from the metadata of that very instance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

CONFIGURATION = "/etc/vmoor/conf.d/10-mesh.yaml"
SECRET_ID = "/etc/vmoor/credentials/secret-id"  # noqa: S105 - a path
VAULT_CA = "/etc/vmoor/vault-ca.pem"
ORDER = "/etc/systemd/system/vmoor.service.d/10-{unit}.conf"
YUM_KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-vmoor"
FETCHED = "/run/vmoor-fetched"  # and .deb or .rpm
IN_IMAGE = "none"

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
# What YAML 1.1 takes for something else than text.
_WORDS = frozenset(("y", "n", "yes", "no", "true", "false", "on", "off", "null"))
_JINJA = re.compile(r"\{[{%#]")
_INSTALL = {"deb": "DEBIAN_FRONTEND=noninteractive apt-get install -y", "rpm": "dnf install -y"}
_HAS_SIDECAR = {
    "deb": "dpkg -s istio-sidecar 2>/dev/null | grep -q 'ok installed'",
    "rpm": "rpm -q istio-sidecar",
}


class Pinned(NamedTuple):
    """A package somewhere else: nothing but the file of this digest is installed."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Packages:
    """Where the VMs get them from."""

    name: str = "vmoor"  # as apt or dnf knows it, a file on the VM, or IN_IMAGE
    pinned: Optional[Pinned] = None
    sidecar: Optional[Pinned] = None
    kind: str = "deb"  # or rpm
    apt_source: str = ""
    apt_key: str = ""
    yum_repo: str = ""
    yum_key: str = ""


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


class Fleet(NamedTuple):
    """What all VMs of one kind share."""

    vault: Sequence[str]  # addresses
    role_id: str
    mesh: str
    workload: Mapping[str, str]
    services: Sequence[Declared]
    wrapping_path: str = ""  # "" = the SecretID comes as it is
    secret_id_from: str = ""  # instance metadata, as a jinja expression; "" = it comes otherwise
    vault_ca: str = ""  # PEM
    packages: Packages = Packages()


def text(fleet: Fleet) -> str:
    """The whole of it, from `## template: jinja` to the last line."""
    lines = ["## template: jinja", "#cloud-config", *map(_escaped, _before(fleet))]
    if fleet.secret_id_from:
        content = f'"{{{{ {fleet.secret_id_from} }}}}"'
        lines.append(f'  - {{path: {SECRET_ID}, permissions: "0600", content: {content}}}')
    lines += map(
        _escaped, [*_order(fleet), *_repository(fleet.packages), *_install(fleet.packages)]
    )
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
    for path, content in ((VAULT_CA, fleet.vault_ca), (YUM_KEY, fleet.packages.yum_key)):
        if content:
            yield f"  - path: {path}"
            yield from _block("    content", content)


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


def _repository(packages: Packages) -> Iterator[str]:
    if packages.apt_source:
        yield "apt:"
        yield "  preserve_sources_list: true"
        yield "  sources:"
        yield "    vmoor:"
        yield f"      source: {json.dumps(packages.apt_source)}"
        if packages.apt_key:
            yield from _block("      key", packages.apt_key)
    if packages.yum_repo:
        signed = {"gpgcheck": True, "repo_gpgcheck": True, "gpgkey": f"file://{YUM_KEY}"}
        yield "yum_repos:"
        yield f"  vmoor: {_flow({'name': 'vmoor', 'baseurl': packages.yum_repo, **signed})}"


def _install(packages: Packages) -> Iterator[str]:
    kind = packages.kind
    local = packages.name.startswith("/")
    by_name = not local and packages.pinned is None and packages.name != IN_IMAGE
    if by_name and packages.sidecar is None:
        yield f"packages: [{packages.name}]"
    elif by_name or packages.pinned or packages.sidecar:
        yield "package_update: true"
    yield "runcmd:"
    # It captures the same traffic; the package's unit must never run beside vmoor's.
    yield "  - [systemctl, mask, --now, istio.service]"
    if packages.sidecar:
        yield from _script([f"! {_HAS_SIDECAR[kind]} || exit 0", *_fetch(packages.sidecar, kind)])
    if packages.pinned:
        yield from _script(_fetch(packages.pinned, kind))
    elif local or (by_name and packages.sidecar):
        yield from _script([f"{_INSTALL[kind]} {packages.name}"])
    if kind == "rpm":  # there, presets start nothing
        yield "  - [systemctl, enable, --now, vmoor.service]"


def _fetch(pinned: Pinned, kind: str) -> Sequence[str]:
    file = f"{FETCHED}.{kind}"
    return [
        f"curl -fsSLo {file} '{pinned.url}'",
        f"echo '{pinned.sha256}  {file}' | sha256sum -c",
        f"{_INSTALL[kind]} {file}",
    ]


def _script(lines: Sequence[str]) -> Iterator[str]:
    yield "  - - sh"
    yield "    - -euc"
    yield from _block("    -", "\n".join(lines))


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
