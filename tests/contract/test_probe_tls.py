"""The http check by https, against OpenSSL on real sockets of this machine."""

from __future__ import annotations

import shlex
import socket
import ssl
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Callable, Optional

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from vmoor.model.health import Probe
from vmoor.model.service import HttpProbe, Tls

from tests.contract.probing import look
from tests.contract.test_probes import OK, drip, server, silence
from tests.rig.certs import Authority

TIMEOUT = 0.5
Answer = Callable[[socket.socket], object]


class Site:
    """Who issues, and a server with a certificate for 127.0.0.1 and web.example."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        names = ["127.0.0.1", "web.example"]
        self.context.load_cert_chain(*self.authority.issue("server", names))
        self.ca = str(self.authority.path)
        self.asked: list[Optional[str]] = []
        self.context.sni_callback = lambda _sock, name, _context: self.asked.append(name)

    def serving(self, answer: Answer) -> AbstractContextManager[int]:
        return server(answer, wrap=lambda plain: self.context.wrap_socket(plain, server_side=True))

    def look(self, tls: Tls, answer: Optional[Answer] = None) -> Probe:
        with self.serving(answer or (lambda taken: taken.sendall(OK + b"\r\n"))) as port:
            return look(HttpProbe("/", port, tls=tls), TIMEOUT)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    folder = tmp_path / "stranger"
    folder.mkdir()
    return Authority(folder)


def test_without_a_ca_any_certificate_will_do(site: Site) -> None:
    """As for the probes of Kubernetes."""
    site.context.load_cert_chain(*site.authority.issue("other", ["192.0.2.1"]))
    assert site.look(Tls()).passed


def test_with_a_ca_the_certificate_must_be_for_the_address(site: Site) -> None:
    assert site.look(Tls(ca=site.ca)).passed
    site.context.load_cert_chain(*site.authority.issue("other", ["192.0.2.1"]))
    words = site.look(Tls(ca=site.ca)).words
    assert words.startswith("its certificate is refused: IP address mismatch")


def test_or_for_the_server_name(site: Site) -> None:
    assert site.look(Tls(ca=site.ca, server_name="web.example")).passed
    assert site.asked == ["web.example"]
    words = site.look(Tls(ca=site.ca, server_name="api.example")).words
    assert words.startswith("its certificate is refused: Hostname mismatch")


def test_the_wrong_ca(site: Site, stranger: Authority) -> None:
    probe = site.look(Tls(ca=str(stranger.path)))
    assert not probe.passed
    assert probe.words.startswith("its certificate is refused: ")


def test_a_renewed_ca_counts_from_the_next_look_on(site: Site, stranger: Authority) -> None:
    ours = stranger.path.read_bytes()
    stranger.path.write_bytes(site.authority.path.read_bytes())
    assert site.look(Tls(ca=str(stranger.path))).passed
    stranger.path.write_bytes(ours)
    assert not site.look(Tls(ca=str(stranger.path))).passed


def test_a_client_certificate(site: Site, stranger: Authority) -> None:
    site.context.load_verify_locations(site.ca)
    site.context.verify_mode = ssl.CERT_REQUIRED
    cert, key = map(str, site.authority.issue("client", ["client"]))
    assert site.look(Tls(cert=cert, key=key)).passed
    assert not site.look(Tls()).passed
    cert, key = map(str, stranger.issue("client", ["client"]))
    assert not site.look(Tls(cert=cert, key=key)).passed


@pytest.mark.parametrize("given", ["ca", "cert"])
def test_files_that_are_of_no_use(site: Site, tmp_path: Path, given: str) -> None:
    """Are named, with the reason."""
    file = tmp_path / "Given.pem"
    tls = Tls(ca=str(file)) if given == "ca" else Tls(cert=str(file), key=str(file))
    names = str(file) if given == "ca" else f"{file} with {file}"
    assert site.look(tls) == Probe(
        passed=False, words=f"cannot read {names}: no such file or directory"
    )
    file.write_text("no certificate")
    assert site.look(tls).words.startswith(f"cannot use {names}: ")


def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    """OpenSSL would ask the terminal for the password, and wait for it: here it has one."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    cert, _ = Authority(tmp_path).issue("client", ["client"])
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key)
    with server(silence) as port:
        code = (
            "from vmoor.adapters.probes import look; from vmoor.model.service import *;"
            f"tls = Tls(cert='{both}', key='{both}');"
            f"print(look(HttpProbe('/', {port}, tls=tls), 5).words)"
        )
        command = ["script", "-qec", shlex.join([sys.executable, "-c", code]), "/dev/null"]
        ran = subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=30
        )
    words = f"cannot use {both} with {both}: not PEM, or encrypted"
    assert ran.stdout.decode().split() == words.split()


def test_a_server_without_tls(site: Site) -> None:
    with server(lambda taken: taken.sendall(b"HTTP/1.1 400 Bad\r\n\r\n")) as port:
        probe = look(HttpProbe("/", port, tls=Tls()), TIMEOUT)
    assert probe == Probe(passed=False, words="TLS: wrong version number")


def test_the_deadline_is_for_the_whole(site: Site) -> None:
    """A handshake that drips, and an answer that does, take no longer than silence."""
    began = time.monotonic()
    # A handshake record of 16 KiB, by single bytes.
    with server(drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")) as port:
        probe = look(HttpProbe("/", port, tls=Tls()), TIMEOUT)
    assert probe == Probe(passed=False, words="timed out after 0.5s")
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 0.2
    began = time.monotonic()
    assert site.look(Tls(), drip(OK + b"X: ")).words == "timed out after 0.5s"
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 0.3
