"""No secret of a VM is anywhere but in the files that are its place."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import SECRET_ID, Fleet

CANARY = "7f3a9c"  # in each secret that the tests make up
TOPS = ("etc", "home", "opt", "root", "run", "srv", "tmp", "var")  # /usr is what packages brought
LIMIT = 16 << 20  # bytes; no larger file in them is ours


def shown(vm: Machine) -> str:
    """All that the agent, its commands and its processes show to people, and to root."""
    parts = [vm.run("journalctl", "-q", "-o", "verbose", "--all").stdout]
    for command in ("status", "status --json", "render", "check", "wait --timeout 0"):
        said = vm.run("vmoor", *command.split(), check=False)
        parts += [said.stdout, said.stderr]
    parts.append(
        vm.sh("systemctl show vmoor vmoor-proxy; systemctl status vmoor vmoor-proxy || :")
    )
    parts.append(vm.sh("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"))
    return "\n".join(parts)


def readable_by_all(vm: Machine) -> Iterator[Path]:
    root = Path(f"/proc/{vm.pid1}/root")
    for top in TOPS:
        for folder, inner, files in os.walk(root / top):
            inner[:] = [
                name for name in inner if (Path(folder, name).lstat().st_mode & stat.S_IXOTH)
            ]
            for name in files:
                path = Path(folder, name)
                mode = path.lstat().st_mode
                if stat.S_ISREG(mode) and mode & stat.S_IROTH:
                    yield path


def holders(vm: Machine, needles: list[bytes]) -> list[str]:
    """Files that everybody may read and that hold one of these."""
    found = []
    for path in readable_by_all(vm):
        with path.open("rb") as file:
            content = file.read(LIMIT)
        if any(needle in content for needle in needles):
            found.append(str(path))
    return found


def secrets(vm: Machine) -> dict[str, str]:
    """Those that a moored VM really has, from where they may be."""
    stored = json.loads(vm.read("/var/lib/vmoor/secret-id.json"))
    kept = json.loads(vm.read("/run/vmoor/credentials.json"))
    tokens = [v["value"] for v in kept.values() if isinstance(v, dict) and "value" in v]
    assert len(tokens) == 3, kept.keys()
    found = {f"token {number}": token for number, token in enumerate(tokens)}
    found["SecretID"] = stored["secret_id"]
    found["istio-token"] = vm.read("/run/vmoor-proxy/istio-token").strip()
    assert all(len(secret) > 20 for secret in found.values())
    return found


def test_a_moored_vm_shows_none_of_its_secrets(web: Machine) -> None:
    """Neither the SecretID nor a token is in journal, status, render, environ, cmdline, or a file
    that others than its owner may read; what was restarted shows no more."""
    web.run("systemctl", "restart", "vmoor")
    harness.wait_moored(web)
    found = secrets(web)
    text = shown(web)
    assert "Moored" in text
    assert [name for name, secret in found.items() if secret in text] == []
    # A token's signature alone would do as a proof that it was printed.
    assert [n for n, s in found.items() if s.rpartition(".")[2] in text] == []
    assert holders(web, [secret.encode() for secret in found.values()]) == []


def test_the_wrapping_token_is_shown_by_nobody_but_cloud_init(web: Machine) -> None:
    """It is spent. The agent does not repeat it; cloud-init's copies of the metadata may."""
    token = web.read(SECRET_ID).strip()
    assert token not in shown(web)
    assert [path for path in holders(web, [token.encode()]) if "/cloud" not in path] == []


@pytest.mark.parametrize(
    ("wrapped", "secret_id", "words"),
    [
        (False, f"first-{CANARY} second-{CANARY}", "more than one word"),
        (False, f"unknown-{CANARY}", "cannot log in"),
        (True, f"hvs.unknown-{CANARY}", "cannot trust the wrapping token"),
    ],
    ids=["two words", "unknown", "bad token"],
)
def test_errors_do_not_quote_a_secret(
    fleet: Fleet, cold: Machine, *, wrapped: bool, secret_id: str, words: str
) -> None:
    """A SecretID that cannot be used is told without repeating it."""
    harness.cold_start(cold, fleet.config(wrapped=wrapped), secret_id)
    harness.told(cold, "identity", words)
    assert CANARY not in shown(cold)
    assert holders(cold, [CANARY.encode()]) == []


def test_errors_do_not_quote_vaults_answers(fleet: Fleet, cold: Machine) -> None:
    """An answer of the wrong shape, with a secret in it, is told without repeating it."""
    answer = json.dumps({"auth": {"client_token": f"hvs.{CANARY}"}, "data": {"secret": CANARY}})
    fleet.vault.status(200, {"Content-Type": "application/json"}, answer)
    harness.cold_start(cold, fleet.config(), fleet.secret_id())
    harness.told(cold, "identity", "cannot use vault's answer")
    assert CANARY not in shown(cold)
