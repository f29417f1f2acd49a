"""A wrong configuration is told with file and line, and never takes anything away."""

from __future__ import annotations

import json

import pytest

from tests.rig.machine import Machine
from tests.system import harness
from tests.system.fleet import CONFIGURATION, Fleet

BROKEN = """\
vault: {address: "https://198.18.0.1:8200", auth: {method: approle, role_id: shop}}
mesh: secret/vmoor/mesh-a
workload: {namespace: shop, name: web, service_acount: web}
services:
  web: {port: 0}
"""
NEAR = r"10-mesh\.yaml:3: .*service_account"
DROP_IN = "/etc/vmoor/conf.d/50-test.yaml"

BROKEN_FILES = {
    "tab": (b"services:\n\tweb: {port: 80}\n", ":2"),
    "not UTF-8": (b"vm: {name: w\xe9b}\n", ":1"),
    "duplicate service": (b"services:\n  web: {port: 80}\n  web: {port: 81}\n", ":3"),
    "bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ":"),
    "cross-field": (b"services:\n  other: {port: 8080}\n", ":2"),
    "wrong type": (b"\n\nvm: [web-1]\n", ":3"),
}  # fmt: skip


def test_it_waits_for_a_configuration(fleet: Fleet, cold: Machine) -> None:
    """Without one the unit is up and says so; a file that appears is taken without a restart."""
    harness.cold_start(cold, "")
    cold.run("rm", CONFIGURATION)
    cold.run("systemctl", "restart", "vmoor")
    harness.told(cold, "config", "no configuration in /etc/vmoor/conf.d", state="wait")
    with harness.unharmed(cold):
        harness.give_secret_id(cold, fleet.secret_id())
        harness.configure(cold, fleet.config())
        harness.wait_moored(cold)


def test_a_broken_first_one_is_told_and_waited_for(fleet: Fleet, cold: Machine) -> None:
    """Every problem with file and line and the nearest key; `vmoor check` exits 78; once mended
    it is taken without a restart."""
    harness.cold_start(cold, BROKEN, fleet.secret_id())
    with harness.unharmed(cold):
        found = harness.told(cold, "config", NEAR, remedy="vmoor check")
        assert "10-mesh.yaml:5: " in found["words"]
        checked = cold.run("vmoor", "check", check=False)
        assert checked.returncode == 78
        said = checked.stdout + checked.stderr
        assert "10-mesh.yaml:3: " in said
        assert "10-mesh.yaml:5: " in said
        harness.configure(cold, fleet.config())
        harness.wait_moored(cold)
    assert cold.run("vmoor", "check").returncode == 0


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_check_names_file_and_line(cold: Machine, name: str) -> None:
    """`vmoor check` of the package exits 78 and points at the line, for whatever is broken."""
    content, line = BROKEN_FILES[name]
    escaped = "".join(f"\\{byte:03o}" for byte in content)
    cold.sh(f"printf '{escaped}' > {DROP_IN}")
    checked = cold.run("vmoor", "check", check=False)
    cold.run("rm", DROP_IN)
    assert checked.returncode == 78
    assert f"50-test.yaml{line}" in checked.stdout + checked.stderr


def test_check_warns_of_a_unit_that_systemd_does_not_know(fleet: Fleet, cold: Machine) -> None:
    """A typing error in its name is no problem of the file, and yet the service would wait."""
    harness.configure(cold, fleet.config())
    before = cold.run("vmoor", "check").stdout
    cold.write(DROP_IN, "services: {web: {unit: wbe.service}}\n")
    after = cold.run("vmoor", "check").stdout
    cold.run("rm", DROP_IN)
    assert "warning" not in before
    assert "warning: services.web: systemd knows no unit wbe.service" in after.splitlines()


def test_a_reload_of_a_broken_one_changes_nothing(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """At SIGHUP the accepted configuration runs on, the problem is told, and a mended file is
    taken by itself."""
    with harness.kept(fleet, client, web):
        web.write(DROP_IN, BROKEN)
        web.run("systemctl", "reload", "vmoor")
        harness.told(web, "config", r"50-test\.yaml:3: ", remedy="accepted configuration runs on")
        harness.beats(fleet, web)
        assert fleet.get(client) == (200, web.name)
        web.run("rm", DROP_IN)
        harness.wait_moored(web)


def test_a_restart_with_a_broken_one_changes_nothing(
    fleet: Fleet, client: Machine, web: Machine
) -> None:
    """At a restart the configuration that was accepted before runs on."""
    entry = harness.uid(fleet.entry(web))
    with harness.unharmed(web, harness.PROXY):
        web.write(DROP_IN, BROKEN)
        web.run("systemctl", "restart", "vmoor")
        with harness.kept(fleet, client, web):
            harness.told(
                web, "config", r"50-test\.yaml:3: ", remedy="accepted configuration runs on"
            )
            harness.beats(fleet, web)
            assert fleet.get(client) == (200, web.name)
            web.run("rm", DROP_IN)
            harness.wait_moored(web)
    assert harness.uid(fleet.entry(web)) == entry


def test_an_unreadable_file_is_told(fleet: Fleet, client: Machine, web: Machine) -> None:
    """A file that root may read and the agent may not is a problem with its name."""
    with harness.kept(fleet, client, web):
        web.write(DROP_IN, json.dumps({"vm": {"labels": {"a": "b"}}}), 0o600)
        web.run("systemctl", "reload", "vmoor")
        harness.told(web, "config", r"50-test\.yaml.*ermission denied", remedy=".")
        web.run("rm", DROP_IN)
        harness.wait_moored(web)
