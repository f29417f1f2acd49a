"""What the admin commands share: how options are read, YAML written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Optional

import click
import yaml

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
# In double and in single quotes, in YAML and in a shell, it stays what it is.
TAME = re.compile(r"[A-Za-z0-9_.,:;/@%+=~?&-]+")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def dns_label(_: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    if value is not None and not _LABEL.fullmatch(value):
        raise click.BadParameter(f"{value!r} is not a DNS label (a-z, 0-9, -)", param=param)
    return value


def tame(_: click.Context, param: click.Parameter, value: Optional[str]) -> Optional[str]:
    if value and not TAME.fullmatch(value):
        raise click.BadParameter(f"{value!r} has characters that do not belong here", param=param)
    return value


def namespaced(_: click.Context, param: click.Parameter, value: str) -> tuple[str, str]:
    """NAMESPACE/NAME."""
    return _two(value, param, "NAMESPACE/NAME")


def mount_and_path(_: click.Context, param: click.Parameter, value: str) -> tuple[str, str]:
    """MOUNT/PATH of a KV secret as `vault kv get` names it."""
    mount, path = _two(value.strip("/"), param, "MOUNT/PATH")
    if path.startswith("data/"):
        right = f"{mount}/{path[len('data/') :]}"
        raise click.BadParameter(f"without data/: {right}", param=param)
    return mount, path


def _two(value: str, param: click.Parameter, form: str) -> tuple[str, str]:
    first, slash, second = value.partition("/")
    if not (first and slash and second):
        raise click.BadParameter(f"{value!r} is not {form}", param=param)
    return first, second


def as_yaml(documents: Iterable[Any]) -> str:
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=99, allow_unicode=True,
        explicit_start=True,
    )  # fmt: skip


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        """Kubernetes reads anchors, people don't."""
        return True
