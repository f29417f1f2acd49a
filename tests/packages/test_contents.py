"""What a person finds on the machine after an installation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.rig import process

# Where bash-completion, fish and Debian's zsh look by themselves.
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/vmoor",
    "fish": "usr/share/fish/vendor_completions.d/vmoor.fish",
    "zsh": "usr/share/zsh/vendor-completions/_vmoor",
}


@pytest.mark.parametrize("shell", COMPLETIONS)
def test_completion_is_where_the_shell_looks(deb_root: Path, shell: str) -> None:
    """Each shell's script asks the installed command in that shell's way."""
    script = (deb_root / COMPLETIONS[shell]).read_text()
    assert f"_VMOOR_COMPLETE={shell}_complete" in script
    assert ("#compdef vmoor" in script) == (shell == "zsh")


def test_bash_completes_commands_and_options(deb_root: Path) -> None:
    """TAB in a bash that has read the script offers commands, subcommands and options."""
    bin_folder = deb_root / "usr/bin"
    environment = {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "PYTHONPATH": str(deb_root / "usr/lib/python3/dist-packages"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert os.access(bin_folder / "vmoor", os.X_OK)

    def tab(*words: str) -> list[str]:
        script = (
            f"source {deb_root / COMPLETIONS['bash']}; COMP_WORDS=({' '.join(words)!s}); "
            f"COMP_CWORD={len(words) - 1}; _vmoor_completion vmoor; echo ${{COMPREPLY[@]}}"
        )
        return process.run(["bash", "-c", script], env=environment).split()

    assert tab("vmoor", "st") == ["status"]
    assert tab("vmoor", "admin", "user") == ["user-data"]
    assert "--timeout" in tab("vmoor", "wait", "--")
