"""User-data: what cloud-init makes of it on a VM."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from click.testing import CliRunner, Result
from vmoor.cli.admin import admin
from vmoor.model import userdata
from vmoor.model.userdata import Declared, Fleet

DOCUMENTED = Path(__file__).resolve().parents[3] / "docs/cloud-init.md"
BARE = (
    "user-data --vault-address https://vault.example:8200 --role-id shop-web "
    "--mesh secret/vmoor/mesh-a --namespace shop --service-account web --name web "
    "--service web=8080,unit=web.service"
)
FLEET = f"{BARE} --package vmoor"
PINNED = "--sidecar https://x.example/s.deb --sidecar-sha256 " + "ab" * 32


def run(more: str = "", fleet: str = FLEET) -> Result:
    return CliRunner().invoke(admin, shlex.split(f"{fleet} {more}"))


def on_vm(text: str) -> Any:
    """As cloud-init does: jinja with the instance's data, then YAML."""
    ds = {"meta_data": {"vmoor_wrap": "hvs.wrapped"}}
    return yaml.safe_load(jinja2.Template(text).render(ds=ds))


def files(text: str) -> dict[str, Any]:
    return {file["path"]: file for file in on_vm(text)["write_files"]}


def test_short_form_fits_the_first_screen() -> None:
    """Without optional parts: at most 15 lines, and complete."""
    text = run().output
    assert "istio-sidecar.deb.sha256" in text  # on stderr, which this runner puts before it
    assert len(text.partition("## template")[2].splitlines()) <= 15


def test_configuration_is_what_the_agent_reads() -> None:
    """Every value of the command line arrives in the configuration."""
    written = yaml.safe_load(files(run().output)[userdata.CONFIGURATION]["content"])
    assert written == {
        "vault": {
            "address": "https://vault.example:8200",
            "auth": {
                "method": "approle",
                "role_id": "shop-web",
                "secret_id_response_wrapping_path": "auth/approle/role/shop-web/secret-id",
            },
        },
        "mesh": "secret/vmoor/mesh-a",
        "workload": {"namespace": "shop", "name": "web", "service_account": "web"},
        "services": {"web": {"port": 8080, "unit": "web.service"}},
    }


def test_secret_id_comes_from_the_instance() -> None:
    """The text holds an expression, the VM's file the token, for root alone."""
    assert "hvs." not in run().output
    file = files(run().output)[userdata.SECRET_ID]
    assert (file["content"], file["permissions"]) == ("hvs.wrapped", "0600")


def test_plain_secret_id_is_not_said_to_be_wrapped() -> None:
    """Or the agent would try to unwrap a SecretID."""
    text = run("--secret-id plain").output
    assert "wrapping_path" not in text
    assert files(text)[userdata.SECRET_ID]["content"] == "hvs.wrapped"


def test_secret_id_may_come_by_other_means() -> None:
    """Then user-data leaves its file alone."""
    assert userdata.SECRET_ID not in files(run("--secret-id none").output)


def test_application_stops_after_the_agent() -> None:
    """A drop-in orders vmoor.service after each unit of a service."""
    drop_in = files(run("--service api=9090,unit=api.service").output)
    assert drop_in[userdata.ORDER.format(unit="api.service")]["content"] == (
        "[Unit]\nAfter=api.service\n"
    )


def test_sidecar_is_pinned_and_comes_before_the_package() -> None:
    """Fetched only if missing, checked by digest; istio.service is masked before."""
    config = on_vm(run(PINNED).output)
    mask, sidecar, package = config["runcmd"]
    assert mask == ["systemctl", "mask", "--now", "istio.service"]
    assert f"echo '{'ab' * 32}  {userdata.FETCHED}.deb' | sha256sum -c" in sidecar[2]
    assert package[2].endswith("apt-get install -y vmoor")
    assert "packages" not in config


def test_rpm_comes_from_its_repository_by_dnf(tmp_path: Path) -> None:
    """The key is on the VM before dnf asks for it; all is checked against it; nothing of apt."""
    key = tmp_path / "vmoor.asc"
    key.write_text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    more = PINNED.replace("s.deb", "s.rpm")
    text = run(f"--yum-repo https://x.example/yum/$releasever --yum-key {key} {more}", BARE).output
    config = on_vm(text)
    assert files(text)[userdata.YUM_KEY]["content"] == key.read_text()
    assert config["yum_repos"]["vmoor"] == {
        "name": "vmoor",
        "baseurl": "https://x.example/yum/$releasever",
        "gpgcheck": True,
        "repo_gpgcheck": True,
        "gpgkey": f"file://{userdata.YUM_KEY}",
    }
    _, sidecar, package, enable = config["runcmd"]
    assert sidecar[2].endswith(f"dnf install -y {userdata.FETCHED}.rpm\n")
    assert package[2] == "dnf install -y vmoor\n"
    assert enable == ["systemctl", "enable", "--now", "vmoor.service"]
    assert "apt-get" not in text
    assert "apt" not in config


def test_image_that_holds_it_installs_nothing() -> None:
    """A golden image boots without package lists and network; only Istio's unit is masked."""
    config = on_vm(run("--package none", BARE).output)
    assert config["runcmd"] == [["systemctl", "mask", "--now", "istio.service"]]
    assert set(config) == {"write_files", "runcmd"}


def test_where_the_package_comes_from_must_be_said() -> None:
    """Or each VM would fail to find it, in an hour when nobody looks: all ways are named."""
    result = run("", BARE)
    assert result.exit_code == 2
    for way in (
        "--apt-source",
        "--yum-repo",
        "--package URL",
        "--package /FILE",
        "--package none",
    ):
        assert way in result.output


def test_package_of_the_image_needs_no_network() -> None:
    """A path is installed as it is, without fetching package lists."""
    config = on_vm(run("--package /srv/repo/vmoor.deb").output)
    assert "package_update" not in config
    assert config["runcmd"][-1][2].endswith("apt-get install -y /srv/repo/vmoor.deb")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--sidecar https://x.example/s.deb", "needs --sidecar-sha256"),
        ("--package https://x.example/v.deb", "needs --package-sha256"),
        ("--service web", "is not NAME=PORT"),
        ("--service Web=80", "is not NAME=PORT"),
        ("--service web=8081", "web stands there twice"),
        ("--service api=15001", "10-mesh.yaml:4: services.api.port"),
        ("--vault-address vault:8200", "10-mesh.yaml:1: vault.address"),
        ("--mesh secret/data/vmoor/mesh-a", "without data/: secret/vmoor/mesh-a"),
        ("--secret-id-from {{x}}", "is not like ds.meta_data.vmoor_wrap"),
        ('--package "a\'b"', "characters"),
        ("--package dist/vmoor.deb", "its absolute path there, or a URL"),
        ("--package vmoor.rpm", "its absolute path there, or a URL"),
        ("--package /srv/vmoor.rpm --apt-source 'deb https://x.example ./'", "make two texts"),
        ("--apt-source https://x.example/apt", "is no line such as"),
        ("--package none --package-sha256 aa", "is for --package URL"),
        ("--sidecar-sha256 aa", "is for --sidecar URL"),
        ("--yum-repo https://x.example --yum-key /bin/true", "is no ASCII-armoured key"),
        ("--yum-repo packages.example/yum", "is no URL"),
        ("--yum-repo https://x.example/yum", "belong together"),
        ("--role-id 9b2c1d1e-0000-1111-2222-333344445555", "--approle NAME"),
    ],
)
def test_wrong_options_are_usage_errors(more: str, words: str) -> None:
    """Exit code 2, and what is wrong."""
    result = run(more)
    assert result.exit_code == 2
    assert words in result.output


def test_documented_playbook_writes_the_same_configuration() -> None:
    """Ansible's in docs/cloud-init.md is YAML, and moors a machine as user-data would."""
    (text,) = re.findall(r"## Ansible.*?```yaml\n(.*?)```", DOCUMENTED.read_text(), re.DOTALL)
    (play,) = yaml.safe_load(text)
    copied = "ansible.builtin.copy"
    written = {task[copied]["dest"]: task[copied] for task in play["tasks"] if copied in task}
    from_text = files(run().output)[userdata.CONFIGURATION]["content"]
    assert written[userdata.CONFIGURATION]["content"] == from_text
    secret = written[userdata.SECRET_ID]
    assert (secret["group"], secret["mode"]) == ("vmoor", "0640")


def test_jinja_leaves_other_text_alone() -> None:
    """What looks like jinja in a value, a certificate's comment say, is not run."""
    hostile = "{{ ds.meta_data }} {% raw %} {# x"
    fleet = Fleet(
        vault=("https://vault.example:8200",),
        role_id=hostile,
        mesh="secret/vmoor/mesh-a",
        workload={"namespace": "shop", "name": "no", "service_account": "web"},
        services=(Declared("web", 8080),),
        vault_ca=f"{hostile}\n-----BEGIN",
    )
    written = files(userdata.text(fleet))
    configuration = yaml.safe_load(written[userdata.CONFIGURATION]["content"])
    assert configuration["vault"]["auth"]["role_id"] == hostile
    assert configuration["workload"]["name"] == "no"
    assert written[userdata.VAULT_CA]["content"] == f"{hostile}\n-----BEGIN\n"
