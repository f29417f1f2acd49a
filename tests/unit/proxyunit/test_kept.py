"""Root's hook keeps what it last set the rules by, for a start with a broken configuration."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from vmoor.proxyunit import intercept, kept, settings, withdraw

FOUND = settings.Settings(
    mode="none",
    dns_capture=False,
    ipv6="closed",
    inbound_ports=(2222, 9100),
    outbound_ports=(25,),
    cidrs=("10.0.0.0/8",),
    pilot_agent="/opt/istio/pilot-agent",
)
BROKEN = "interception: ["


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "etc"
    (made / "conf.d").mkdir(parents=True)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules/settings.json"


@pytest.mark.usefixtures("owners")
def test_a_broken_drop_in_leaves_the_rules_as_they_were(folder: Path, file: Path) -> None:
    """All values come back, and one line names the file that is to be mended."""
    kept.keep(pytest.fail, FOUND, file)
    (folder / "conf.d/20.yaml").write_text(BROKEN)
    told: list[str] = []
    assert kept.load(told.append, folder, file) == FOUND
    (line,) = told
    assert f"cannot read {folder}/conf.d/20.yaml" in line


@pytest.mark.usefixtures("owners")
def test_a_sound_configuration_wins(folder: Path, file: Path) -> None:
    """What was kept is silent then, even if it is broken itself."""
    file.parent.mkdir()
    file.write_text("{")
    (folder / "vmoor.yaml").write_text("interception: {mode: none}")
    assert kept.load(pytest.fail, folder, file) == settings.Settings(mode="none")


@pytest.mark.usefixtures("owners")
def test_nothing_kept_fails_as_before(folder: Path, file: Path) -> None:
    """No default is guessed: the broken file may hold an exclusion."""
    (folder / "vmoor.yaml").write_text(BROKEN)
    with pytest.raises(settings.Unusable, match=r"vmoor\.yaml: .*; no settings of an earlier"):
        kept.load(pytest.fail, folder, file)


@pytest.mark.parametrize("owner", [(995, 0o644), (0, 0o666)])
def test_what_others_could_have_written_is_not_believed(
    owners: dict[str, tuple[int, int]], folder: Path, file: Path, owner: tuple[int, int]
) -> None:
    """It names a binary that root runs."""
    kept.keep(pytest.fail, FOUND, file)
    owners[str(file)] = owner
    (folder / "vmoor.yaml").write_text(BROKEN)
    with pytest.raises(settings.Unusable, match=r"settings\.json (belongs|is writable)"):
        kept.load(pytest.fail, folder, file)


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", json.dumps({"interception": {"exclude": {"inbound_ports": ["1 -j DROP"]}}})],
)
def test_kept_values_are_checked_again(folder: Path, file: Path, content: str) -> None:
    """A file that was cut short or changed by hand is no settings."""
    file.parent.mkdir()
    file.write_text(content)
    (folder / "vmoor.yaml").write_text(BROKEN)
    with pytest.raises(settings.Unusable, match="no settings of an earlier start"):
        kept.load(pytest.fail, folder, file)


def test_it_can_be_read_by_all_and_written_by_its_owner(file: Path) -> None:
    """Nothing in it is secret; trusted.check wants nobody else to write."""
    kept.keep(pytest.fail, FOUND, file)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)]
    assert modes == [0o755, 0o644]


def test_a_full_disk_is_told_and_no_more(tmp_path: Path) -> None:
    """The rules are in force by then and stay."""
    (tmp_path / "file").write_text("")
    told: list[str] = []
    kept.keep(told.append, FOUND, tmp_path / "file/settings.json")
    assert told[0].startswith("cannot keep the settings of the capture rules: ")


@pytest.mark.parametrize("ready", [True, False])
def test_only_what_was_applied_is_kept(monkeypatch: pytest.MonkeyPatch, ready: bool) -> None:
    """Settings by which the rules could not be set are no fallback."""
    done: list[Any] = []

    def await_ready() -> float:
        if not ready:
            raise withdraw.Failed("no proxy")
        return 0.0

    monkeypatch.setattr(kept, "load", lambda tell: FOUND)
    monkeypatch.setattr(kept, "keep", lambda tell, found: done.append(found))
    monkeypatch.setattr(intercept, "withdraw", lambda: None)
    monkeypatch.setattr(intercept, "sweep", lambda: None)
    monkeypatch.setattr(intercept, "publish", lambda content: done.append("published"))
    monkeypatch.setattr(intercept, "await_ready", await_ready)
    if ready:
        intercept.apply("1")
        assert done == ["published", FOUND]
    else:
        with pytest.raises(withdraw.Failed):
            intercept.apply("1")
        assert done == []
