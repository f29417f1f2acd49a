"""`vmoor fleet` without a cluster to ask."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from vmoor.adapters import kubectl, run
from vmoor.cli.fleet import fleet


@pytest.mark.parametrize(
    ("stderr", "words", "fix"),
    [
        (
            "The connection to the server localhost:8080 was refused - did you specify the right "
            "host or port?",
            "no kubeconfig",
            "Fix:  name one: --kubeconfig FILE",
        ),
        ("error: current-context must exist in order to minify", "no kubeconfig", "Fix:"),
        ('error: context "b" does not exist', 'error: context "b" does not exist', ""),
    ],
)
def test_what_kubectl_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, stderr: str, words: str, fix: str
) -> None:
    """In one line what was to be read, and why not; exit code 1."""
    monkeypatch.setattr(kubectl.shutil, "which", lambda _: "/usr/bin/kubectl")
    monkeypatch.setattr(run, "run", lambda *_, **__: run.Done(1, "", stderr))
    done = CliRunner().invoke(fleet, [])
    assert done.exit_code == 1
    assert done.output.splitlines()[0] == f"cannot read leases: {words}"
    assert fix in done.output


def test_a_machine_without_kubectl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as an error of the system's."""
    monkeypatch.setattr(kubectl.shutil, "which", lambda _: None)
    done = CliRunner().invoke(fleet, [])
    assert (done.exit_code, done.output.splitlines()[0]) == (1, "cannot find kubectl")
