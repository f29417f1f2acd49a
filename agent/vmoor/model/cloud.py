"""What cloud-init's instance data says of a VM, cloud by cloud.

https://cloudinit.readthedocs.io/en/latest/explanation/instancedata.html: what stands under `ds`
is as the cloud tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Union

# The primary interface's. Google's datasource does not ask for it (DataSourceGCE.read_md).
_PUBLIC: tuple[tuple[Union[str, int], ...], ...] = (
    ("meta_data", "public-ipv4"),  # EC2, and who speaks its API
    ("ec2_metadata", "public-ipv4"),  # OpenStack's floating IP
    ("meta_data", "imds", "network", "interface", 0, "ipv4", "ipAddress", 0, "publicIpAddress"),
)


def public_address(data: Mapping[str, Any]) -> str:
    """The public address, as it stands there; "" when the cloud told none."""
    found = (_at(data.get("ds"), path) for path in _PUBLIC)
    return next((each for each in found if isinstance(each, str) and each), "")


def _at(value: Any, path: tuple[Union[str, int], ...]) -> Any:
    try:
        for part in path:
            value = value[part]
    except (KeyError, IndexError, TypeError):
        return None
    return value
