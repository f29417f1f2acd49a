"""What a unit's files may say of its services."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmoor.adapters import markers
from vmoor.config import marker
from vmoor.config.marker import Text
from vmoor.model.service import HttpProbe, Service, UnitProbe

LINE = "X-Vmoor-Service=web port=8080 http=/healthz weight=5 label.tier=front"


def declared(*texts: str, unit: str = "web.service") -> tuple[Service, ...]:
    found, problems = marker.services(unit, [Text(f"{i}", text) for i, text in enumerate(texts)])
    assert not problems
    return found


def problem(line: str) -> str:
    found, problems = marker.services("w.service", [Text("/w", f"[Unit]\n{line}\n[Service]")])
    assert not found
    (words,) = problems
    return words


def test_a_line_is_a_service_of_the_unit() -> None:
    """With the same unit check first as `unit:` in the configuration brings."""
    (web,) = declared(f"[Service]\nExecStart=x\n{LINE}\n")
    assert (web.name, web.ports, web.weight, web.labels) == (
        "web", {"http": 8080}, 5, {"tier": "front"},
    )  # fmt: skip
    assert (web.unit, web.source) == ("web.service", "systemd")
    unit, http = web.checks
    assert (unit.probe, unit.failure_threshold) == (UnitProbe("web.service", (8080,)), 1)
    assert http.probe == HttpProbe("/healthz", 8080)


def test_ports_have_names() -> None:
    """The one that is named http is checked."""
    (web,) = declared("[Unit]\nX-Vmoor-Service = web port.http=80 port.admin=81 http=/\n")
    assert web.ports == {"http": 80, "admin": 81}
    assert web.checks[1].probe == HttpProbe("/", 80)


def test_lines_continue_and_comments_do_not_count() -> None:
    """As systemd.syntax(7) has it: also a comment between continued lines."""
    text = "[Unit]\n#X-Vmoor-Service=no port=1\nX-Vmoor-Service=web \\\n; note\n  port=80\n"
    (web,) = declared(text)
    assert web.ports == {"http": 80}


def test_several_lines_add_and_an_empty_one_takes_all_before() -> None:
    """So that a drop-in can add to what the package ships, or replace it."""
    assert [s.name for s in declared(f"[Unit]\n{LINE}", "[Unit]\nX-Vmoor-Service=b port=1")] == [
        "web",
        "b",
    ]
    override = "[Unit]\nX-Vmoor-Service=\nX-Vmoor-Service=b port=1"
    assert [s.name for s in declared(f"[Unit]\n{LINE}", override)] == ["b"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("X-Vmoor-Service=web", "service web has no port"),
        ("X-Vmoor-Service=Web port=80", "'Web' is not a service name"),
        ("X-Vmoor-Service=web port=0", "'0' is not a number from 1 to 65535"),
        ("X-Vmoor-Service=web port=65536", "'65536' is not a number"),
        ("X-Vmoor-Service=web port=80²", "is not a number"),
        ("X-Vmoor-Service=web port=15001", "15001 is a port of the proxy itself"),
        ("X-Vmoor-Service=web port.Bad=80", "'port.Bad=80' is not known"),
        ("X-Vmoor-Service=web 8080", "'8080' is not KEY=VALUE"),
        ("X-Vmoor-Service=web port=80 http=healthz", "'http=healthz' is not known"),
        ("X-Vmoor-Service=web port=80 label.vmoor.io/vm=x", "is vmoor's own label"),
        ("X-Vmoor-Service=web port=80 label.a={zon}", "label a: there is no variable {zon}"),
        ("X-Vmoor-Service=web port.a=80 port.b=81 http=/", "port.http=N"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(line: str, words: str) -> None:
    """And the service is left out."""
    told = problem(line)
    assert told.startswith("/w:2: ")
    assert words in told


def test_other_sections_are_told() -> None:
    """A line in [Install] would be lost in silence."""
    _, problems = marker.services("w.service", [Text("/w", f"[Install]\n{LINE}")])
    assert problems == ("/w:2: X-Vmoor-Service belongs in [Unit] or [Service], not in [Install]",)


# The files


def write(path: Path, text: str = f"[Unit]\n{LINE}\n") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def look(tmp_path: Path) -> dict[str, list[str]]:
    found = markers.read([f"{tmp_path}/etc", f"{tmp_path}/none", f"{tmp_path}/lib"])
    return {name: [text.file for text in texts] for name, texts in found.items()}


def test_an_earlier_folder_hides_a_later_one(tmp_path: Path) -> None:
    """As systemd.unit(5) has it, drop-ins too; those are read by name, after the unit's file."""
    own = write(tmp_path / "etc/web.service")
    write(tmp_path / "lib/web.service")
    write(tmp_path / "lib/plain.service")
    write(tmp_path / "etc/plain.service", "[Unit]\n")
    late = write(tmp_path / "etc/web.service.d/20.conf")
    write(tmp_path / "lib/web.service.d/20.conf")
    early = write(tmp_path / "lib/web.service.d/10.conf")
    assert look(tmp_path) == {"web.service": [own, early, late]}


def test_links_mask_or_are_other_names(tmp_path: Path) -> None:
    """Neither is a unit of its own; a linked unit file of the same name is."""
    write(tmp_path / "lib/masked.service")
    write(tmp_path / "opt/linked.service")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/masked.service").symlink_to("/dev/null")
    (tmp_path / "etc/alias.service").symlink_to(tmp_path / "opt/linked.service")
    linked = tmp_path / "etc/linked.service"
    linked.symlink_to(tmp_path / "opt/linked.service")
    assert look(tmp_path) == {"linked.service": [str(linked)]}


def test_names_are_units_names(tmp_path: Path) -> None:
    """With systemd's escapes; other files and what cannot be read are passed over."""
    escaped = write(tmp_path / "lib/my\\x2dapp@a.service")
    write(tmp_path / "lib/web.service~")
    write(tmp_path / "lib/web.socket")
    (tmp_path / "lib/folder.service").mkdir()
    (tmp_path / "lib/gone.service").symlink_to(tmp_path / "lib/gone/gone.service")
    assert look(tmp_path) == {"my\\x2dapp@a.service": [escaped]}


def test_a_long_file_is_read_to_its_bound(tmp_path: Path) -> None:
    """64 KiB: no unit file fills the memory."""
    write(tmp_path / "lib/web.service", "#" * markers.SIZE_LIMIT + f"\n[Unit]\n{LINE}")
    assert look(tmp_path) == {}
