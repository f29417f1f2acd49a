from __future__ import annotations

import pytest
from vmoor.config.listen import listen_at


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.0.0.1:9478", ("127.0.0.1", 9478)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    """An IP address and a port; that of IPv6 stands in brackets."""
    assert listen_at(text) == found


@pytest.mark.parametrize(
    "text",
    ["9478", ":9478", "localhost:9478", "::1:9478", "[127.0.0.1]:9478", "127.0.0.1:0",
     "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:", "256.0.0.1:80", "127.0.0.1:15006"],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    """Names, wild cards by omission, and the proxy's ports, which it needs."""
    with pytest.raises(ValueError, match=r"^(is not an address|has no port|has 15006)"):
        listen_at(text)
