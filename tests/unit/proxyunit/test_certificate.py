"""The workload certificate that outlives a reboot."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmoor.proxyunit import launcher

WEB = {"TRUST_DOMAIN": "cluster.local", "POD_NAMESPACE": "shop", "SERVICE_ACCOUNT": "web"}


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "etc/certs/cert-chain.pem"
    path.parent.mkdir(parents=True)
    path.write_text("PEM")
    return path


def test_the_same_identity_keeps_it(certificate: Path) -> None:
    """It is what a reboot without Vault authenticates with."""
    launcher.drop_foreign_certificate(WEB)
    launcher.drop_foreign_certificate(WEB)
    assert certificate.exists()


def test_another_identity_drops_it(certificate: Path) -> None:
    """A VM that became another workload would otherwise be refused by istiod for ever."""
    launcher.drop_foreign_certificate(WEB)
    launcher.drop_foreign_certificate({**WEB, "POD_NAMESPACE": "late"})
    assert not certificate.exists()
