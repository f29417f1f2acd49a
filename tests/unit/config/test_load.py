# ruff: noqa: E501 - messages stand in one piece, as they are told

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vmoor.config import load as loading
from vmoor.config.build import settings_from
from vmoor.config.load import NoConfiguration, load
from vmoor.config.settings import (
    AppRole,
    ConsulSource,
    ExecSource,
    Interception,
    Leave,
    MeshSource,
    Sources,
)
from vmoor.model.service import (
    Check,
    ExecProbe,
    FileProbe,
    GrpcProbe,
    HttpProbe,
    ProcessProbe,
    TcpProbe,
    Tls,
    TtlProbe,
    UnitProbe,
)

from tests.unit.config.folders import GOOD, facts, good, told, write

NOBODY = 65534


def test_the_documented_configuration(tmp_path: Path) -> None:
    """The five lines of the documentation give a service with its unit and its http check."""
    settings = load(write(tmp_path, **{"10-mesh": GOOD})).settings
    assert settings.vault.addresses == ("https://vault.example:8200",)
    assert settings.vault.auth == AppRole("shop-web")
    assert settings.mesh == MeshSource(kv_mount="secret", kv_path="vmoor/mesh-a")
    web = settings.services[0]
    assert web.ports == {"http": 8080}
    assert web.checks == (
        Check("unit web.service", UnitProbe("web.service", (8080,)), failure_threshold=1),
        Check("http /healthz", HttpProbe("/healthz", 8080)),
    )


def test_everything_at_once(tmp_path: Path) -> None:
    """Every key is accepted, and what is the agent's arrives in the settings."""
    text = """\
vault:
  address: [https://a:8200, "http://127.0.0.1:8200"]
  ca_cert: /etc/vmoor/ca.pem
  namespace: team
  auth:
    {method: approle, mount_path: auth/vms, role_id: r, secret_id_file_path: /s,
     secret_id_response_wrapping_path: auth/vms/role/web/secret-id}
mesh: {vault_kv: {mount: a/b, path: c}, revision: canary, network: vms}
vm: {name: vm-1, interface: eth1, locality: r/z/s, labels: {rack: r7}}
workload: {namespace: shop, name: web, service_account: web, labels: {version: v1}}
services:
  web:
    ports: {http: 8080, admin: 9090}
    protocol: HTTP
    weight: 5
    labels: {tier: front}
    checks:
    - http: {path: /h, port: admin, host: "::1", headers: {Host: web}, status: 204}
      period: 500ms
      failure_threshold: 3
      success_threshold: 2
      initial_delay: 1.5s
    - tcp:
    - tcp: 7070
proxy: {pilot_agent: /p, envoy: /e, bootstrap_template: /t, concurrency: 2, config: {a: 1.5}}
interception:
  {mode: none, dns_capture: no,
   exclude: {inbound_ports: [9100], outbound_ports: [25], cidrs: [10.0.0.0/8]}}
log: {level: debug}
leave: {on_stop: no, keep_entries: yes}
drain: {timeout: 1500ms}
"""
    settings = load(write(tmp_path, vmoor=text)).settings
    assert settings.vault.addresses == ("https://a:8200", "http://127.0.0.1:8200")
    assert settings.vault.auth.secret_id_response_wrapping_path == "auth/vms/role/web/secret-id"
    assert settings.mesh == MeshSource("a/b", "c", None, "canary", "vms")
    assert settings.vm.labels == {"rack": "r7"}
    assert settings.interception == Interception("none", dns_capture=False)
    assert settings.proxy.config == {"a": 1.5}
    assert settings.log_level == "debug"
    assert settings.leave == Leave(on_stop=False, keep_entries=True)
    assert settings.drain_timeout == 1.5
    web = settings.services[0]
    assert (web.protocol, web.weight, web.labels) == ("HTTP", 5, {"tier": "front"})
    http = HttpProbe("/h", 9090, "::1", {"Host": "web"}, (204, 204))
    assert web.checks[0] == Check("http /h", http, 0.5, 0.5, 3, 2, 1.5)
    assert [check.probe for check in web.checks[1:]] == [TcpProbe(p) for p in (8080, 9090, 7070)]


def test_further_checks(tmp_path: Path) -> None:
    checks = [
        {"http": {"path": "/h", "method": "GET", "body": "ready"}},
        {"http": {"path": "/h", "tls": True}},
        {"http": {"path": "/h", "tls": {"ca": "/c", "server_name": "web.example"}}},
        {"grpc": True},
        {"grpc": 9090},
        {"grpc": {"port": "http", "service": "shop.Cart"}},
        {"file": "/run/web/a"},
        {"file": {"path": "/run/web/b", "max_age": "1m"}, "critical": False},
        {"process": "/run/a.pid"},
        {"process": {"pid_file": "/run/b.pid"}},
        {"ttl": "1.5m", "group": "app"},
    ]
    text = good(services={"web": {"port": 8080, "weight": 100, "checks": checks}})
    (web,) = load(write(tmp_path, **{"10": text})).settings.services
    assert [check.probe for check in web.checks] == [
        HttpProbe("/h", 8080, body="ready"),
        HttpProbe("/h", 8080, tls=Tls()),
        HttpProbe("/h", 8080, tls=Tls(ca="/c", server_name="web.example")),
        GrpcProbe(8080),
        GrpcProbe(9090),
        GrpcProbe(8080, "shop.Cart"),
        FileProbe("/run/web/a"),
        FileProbe("/run/web/b", 60.0),
        ProcessProbe("/run/a.pid"),
        ProcessProbe("/run/b.pid"),
        TtlProbe("web", 90.0, "app"),
    ]
    assert [check.critical for check in web.checks] == [*[True] * 7, False, True, True, True]
    assert [check.name for check in web.checks[3:6]] == [
        "grpc 8080",
        "grpc 9090",
        "grpc 8080 shop.Cart",
    ]


def test_grpc_means_the_port_of_that_name(tmp_path: Path) -> None:
    """Of several, as http does."""
    checks = [{"grpc": True}, {"grpc": {}}, {"http": "/"}]
    text = good(services={"api": {"ports": {"http": 80, "grpc": 81}, "checks": checks}})
    (api,) = load(write(tmp_path, **{"10": text})).settings.services
    assert [check.probe for check in api.checks] == [
        GrpcProbe(81),
        GrpcProbe(81),
        HttpProbe("/", 80),
    ]


def test_a_service_that_says_nothing_is_still_checked(tmp_path: Path) -> None:
    """With neither unit nor checks, each port gets a tcp check."""
    text = good(services={"db": {"ports": {"sql": 3306, "admin": 81}}})
    (db,) = load(write(tmp_path, **{"10": text})).settings.services
    assert [check.name for check in db.checks] == ["tcp 81", "tcp 3306"]


def test_an_exec_check_is_known_by_its_place(tmp_path: Path) -> None:
    """Its number is that in the list of the files, whatever the other checks become."""
    checks = [{"tcp": True}, {"exec": ["/bin/a", "b"], "timeout": "3s"}]
    text = good(
        services={"db": {"ports": {"x": 1, "y": 2}, "unit": "d.service", "checks": checks}}
    )
    (db,) = load(write(tmp_path, **{"10": text})).settings.services
    assert db.checks[-1] == Check("exec /bin/a", ExecProbe("db", 1), timeout=3.0)
    assert len(db.checks) == 4


def test_a_source_is_lacking_when_its_key_is_not_there(tmp_path: Path) -> None:
    """What is no source's name is never lacking: `status` shows its step."""
    sources = load(write(tmp_path, a=good(sources={"consul": {}}))).settings.sources
    names = ("consul", "file", "systemd", "sockets", "identity")
    assert [name for name in names if sources.lacks(name)] == ["file", "systemd", "sockets"]


def test_the_times_of_an_exec_source(tmp_path: Path) -> None:
    """Half a minute and ten seconds, or the period when that is shorter."""
    for times, want in (
        ({}, (30.0, 10.0)),
        ({"period": "5s"}, (5.0, 5.0)),
        ({"period": "1h", "timeout": "2m"}, (3600.0, 120.0)),
    ):
        given = {"exec": {"command": ["/bin/a", "b c"], **times}}
        loaded = load(write(tmp_path, a=good(sources=given))).settings.sources.exec
        assert loaded == ExecSource(("/bin/a", "b c"), *want)


def test_further_sources(tmp_path: Path) -> None:
    """An empty mapping takes the defaults; what is not there is no source."""
    assert load(write(tmp_path, a=good())).settings.sources == Sources()
    default = load(write(tmp_path, a=good(sources={"consul": {}}))).settings.sources.consul
    assert default == ConsulSource("http://127.0.0.1:8500", "", "vmoor")
    own = {"address": "http://[::1]:8501", "token_file": "/etc/vmoor/t", "require_tag": ""}
    assert load(write(tmp_path, a=good(sources={"consul": own}))).settings.sources == Sources(
        consul=ConsulSource(**own)
    )


def test_inline_facts(tmp_path: Path) -> None:
    """The mesh facts may stand in the configuration itself."""
    settings = load(write(tmp_path, **{"10": good(mesh={**facts(), "network": "n"})})).settings
    assert settings.mesh.inline is not None
    assert settings.mesh.inline.istio.discovery == ("198.18.0.1:15012",)
    assert settings.mesh.network == "n"


def test_inline_facts_are_checked_at_their_place(tmp_path: Path) -> None:
    """A wrong fact is told with its line, and a fact that is missing with what to add."""
    text = """\
mesh:
  version: 1
  kubernetes: {server: ["http://k:6443"], ca: x}
  istio:
    discovery: [istiod]
    san: istiod
"""
    lines = told(write(tmp_path, **{"10": GOOD, "20": text}))
    assert lines == [
        "20.yaml:3: mesh.kubernetes.server: 'http://k:6443' is not a URL such as "
        "https://198.18.0.1:6443: a token must not travel in the clear",
        "20.yaml:3: mesh.kubernetes.ca: is not a PEM bundle of certificates "
        "(-----BEGIN CERTIFICATE----- ...)",
        "20.yaml:4: mesh.istio: 'root_ca' is missing, add `root_ca: PEM`",
        "20.yaml:5: mesh.istio.discovery: 'istiod' is not HOST:PORT such as 198.18.0.1:15012",
    ]


def test_order_of_files(tmp_path: Path) -> None:
    """vmoor.yaml first, then bytes: 10 before 9; mappings merge, scalars and lists replace."""
    write(
        tmp_path,
        **{
            "vmoor": good(log={"level": "error"}, services={"web": {"port": 1}}),
            "10": "services: {web: {port: 2, weight: 7, checks: [{http: /a}, {tcp: 1}]}}\n",
            "9": "services: {web: {port: 3, checks: [{http: /b}]}}\nlog: {level: debug}\n",
        },
    )
    settings = load(tmp_path).settings
    (web,) = settings.services
    assert (web.ports, web.weight) == ({"http": 3}, 7)
    assert [check.name for check in web.checks] == ["http /b"]
    assert settings.log_level == "debug"


def test_files_that_say_nothing(tmp_path: Path) -> None:
    """Empty files, comments, a byte order mark and editors' leftovers do no harm."""
    write(tmp_path, **{"10": b"\xef\xbb\xbf" + GOOD.encode(), "20": "", "30": "# off\n---\n"})
    (tmp_path / "conf.d" / "10.yaml.dpkg-old").write_text("port: 0")
    (tmp_path / "conf.d" / ".#10.yaml").symlink_to("nowhere")
    assert told(tmp_path) == []


def test_none_is_not_a_mistake(tmp_path: Path) -> None:
    """Without any file the agent can tell that it waits for one."""
    with pytest.raises(NoConfiguration) as raised:
        load(tmp_path)
    want = f"no configuration in {tmp_path}/conf.d: begin with /usr/share/doc/vmoor/examples/vmoor.yaml"
    assert raised.value.problems == (want,)


def test_missing_keys_come_with_the_line_to_add(tmp_path: Path) -> None:
    """The enclosing mapping's line, and text that can be pasted."""
    text = "services: {}\nvault:\n  auth: {method: approle}\nworkload:\n  name: web\n"
    assert told(write(tmp_path, **{"10": text})) == [
        "10.yaml:1: 'mesh' is missing, add `mesh: secret/vmoor/mesh-a`",
        "10.yaml:2: vault: 'address' is missing, add `address: \"https://vault.example:8200\"`",
        "10.yaml:3: vault.auth: 'role_id' is missing, add `role_id: shop-web`",
        "10.yaml:4: workload: 'namespace' is missing, add `namespace: shop`",
        "10.yaml:4: workload: 'service_account' is missing, add `service_account: web`",
    ]


def test_all_problems_of_all_files_at_once(tmp_path: Path) -> None:
    """In the order of the files and lines; nothing is called missing that may stand in a file
    that cannot be read."""
    write(
        tmp_path,
        **{
            "10": "vault: {addrez: x}\nworkload: {namespace: Shop}\n",
            "20": "mesh: a/b\n\tvault: 1\n",
            "30": "services:\n  web: {port: 80}\n  api: {port: 80}\n",
        },
    )
    (tmp_path / "conf.d" / "40.yml").write_text("")
    assert told(tmp_path) == [
        "40.yml: not read, because its name does not end in .yaml: "
        "mv 40.yml 40.yaml",  # `told` leaves the folders out
        "10.yaml:1: vault: unknown key 'addrez', did you mean 'address'?",
        "10.yaml:2: workload.namespace: 'Shop' is not a DNS label "
        "(lower-case letters, digits and dashes, at most 63)",
        "20.yaml:2: a tab; YAML is indented with spaces",
        "30.yaml:3: services.api.port: 80 is already the port of service 'web'; one is wrong",
    ]


def test_the_line_is_that_of_the_file_that_counts(tmp_path: Path) -> None:
    """A value that a later file replaces is told at its place there, the others at theirs."""
    write(
        tmp_path,
        **{
            "10": GOOD,
            "20": "services:\n  web:\n    port: 0\n    weight: 0\n",
            "30": "\nservices: {web: {port: -1}}\n",
        },
    )
    assert told(tmp_path) == [
        "20.yaml:4: services.web.weight: 0 is not a weight (1 to 65535)",
        "30.yaml:2: services.web.port: -1 is not a port (1 to 65535)",
    ]


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    """Fifty are told, the rest is counted."""
    text = "services:\n" + "".join(f"  s{i}: {{}}\n" for i in range(80))
    lines = told(write(tmp_path, **{"10": GOOD, "20": text}))
    assert (len(lines), lines[-1]) == (51, "and 30 more")


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """A folder that another user may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_unreadable_file(strangers_folder: Path) -> None:
    """The owner, the mode and the command that helps."""
    path = write(strangers_folder, **{"10": GOOD, "20": "log: {}\n"}) / "conf.d" / "20.yaml"
    load(strangers_folder)  # the schema, from a checkout that only root may enter
    path.chmod(0o600 if os.geteuid() == 0 else 0)
    before = os.geteuid()
    owner, mode = ("root:root", "0600") if before == 0 else (None, "0000")
    if before == 0:
        os.seteuid(NOBODY)
    try:
        (line,) = told(strangers_folder)
    finally:
        os.seteuid(before)
    if owner:
        assert line == (
            f"20.yaml: cannot be read: permission denied ({owner}, mode {mode}): chmod 0644 20.yaml"
        )
    assert f"mode {mode}): chmod 0644" in line


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """Whatever the system says of a file is told."""
    write(tmp_path, **{"10": GOOD})
    (tmp_path / "conf.d" / "20.yaml").mkdir()
    assert told(tmp_path) == ["20.yaml: cannot be read: is a directory"]


def test_the_document_is_enough(tmp_path: Path) -> None:
    """The settings come back from the kept JSON, whatever the order of its keys."""
    services = {"z": {"ports": {"b": 2, "a": 1}}, "a": {"port": 3, "unit": "a.service"}}
    loaded = load(write(tmp_path, **{"10": good(mesh=facts(), services=services)}))
    kept = json.dumps(loaded.document, sort_keys=True)
    assert settings_from(json.loads(kept)) == loaded.settings


def test_child_process_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The daemon's child prints one JSON object: a document, problems, or that there is none."""
    assert loading.main([str(tmp_path)]) == 78
    waiting = json.loads(capsys.readouterr().out)
    assert waiting["none"] is True
    write(tmp_path, **{"10": "a: 1\n"})
    assert loading.main([str(tmp_path)]) == 78
    wrong = json.loads(capsys.readouterr().out)
    assert (wrong["none"], wrong["problems"][0]) == (
        False,
        f"{tmp_path}/conf.d/10.yaml:1: unknown key 'a', known here: drain, hooks, interception, "
        "leave, log, mesh, metrics, proxy, services, sources, vault, vm, workload",
    )
    write(tmp_path, **{"10": GOOD})
    assert loading.main([str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)["document"]
    assert document["services"]["web"]["port"] == 8080
