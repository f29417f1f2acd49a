from __future__ import annotations

from pathlib import Path

import pytest
from vmoor.adapters import account
from vmoor.errors import LocalFault


def test_a_renewed_token_is_taken_at_once(tmp_path: Path) -> None:
    """kubelet replaces the file within the token's life."""
    token = tmp_path / "token"
    access = account.of_files("https://k", "ca", str(token), account="a", remedy="")
    token.write_text("one\n")
    assert access().token.reveal() == "one"
    token.write_text("two\n")
    assert access().token.reveal() == "two"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_an_unusable_token_is_told(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, no text: the path and the option."""
    token = tmp_path / "token"
    if content is not None:
        token.write_bytes(content)
    access = account.of_files("https://k", "ca", str(token), account="a", remedy="")
    with pytest.raises(LocalFault, match=str(token)):
        access()


def test_its_words_are_not_those_of_a_vm(tmp_path: Path) -> None:
    """What to mend are this command's options."""
    token = tmp_path / "token"
    token.write_text("one")
    access = account.of_files("https://k", "ca", str(token), account="a", remedy="")()
    assert access.unreached == "let this machine reach the API server, or mend --server"
    assert access.token_remedy == f"write a new one: {token}"


@pytest.mark.parametrize(
    ("host", "url"),
    [("", ""), ("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
def test_a_pod_knows_its_cluster(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    """By the variables that kubelet sets."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert account.in_cluster() == url
