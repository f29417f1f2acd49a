"""Broken configurations, and exactly what is said about each."""

# ruff: noqa: E501 - messages stand in one piece, as they are told

from __future__ import annotations

from pathlib import Path
from typing import Union

import pytest

from tests.unit.config.folders import GOOD, told, write

URL = "a URL such as https://vault.example:8200"
LABEL = (
    "at most 63 letters, digits, dashes, dots and underscores, a letter or digit first and last"
)

# What is added as conf.d/20.yaml to the good configuration, and the lines that follow.
ADDED: dict[str, tuple[Union[str, bytes], list[str]]] = {
    "unknown key, near": (
        "vault:\n  addrez: x\n",
        ["20.yaml:2: vault: unknown key 'addrez', did you mean 'address'?"],
    ),
    "metrics without an address": (
        "metrics: {}\n",
        ["""20.yaml:1: metrics: 'listen' is missing, add `listen: "127.0.0.1:9478"`"""],
    ),
    "metrics at a name": (
        "metrics: {listen: 'localhost:9478'}\n",
        [
            "20.yaml:1: metrics.listen: 'localhost:9478' is not an address and a port such as 127.0.0.1:9478"
        ],
    ),
    "metrics at a port of the proxy": (
        "metrics: {listen: '127.0.0.1:15090'}\n",
        [
            "20.yaml:1: metrics.listen: '127.0.0.1:15090' has 15090, a port of the proxy itself; choose another"
        ],
    ),
    "metrics at a service's port": (
        "metrics: {listen: '0.0.0.0:8080'}\n",
        ["20.yaml:1: metrics.listen: 8080 is already the port of service 'web'; choose another"],
    ),
    "unknown key, far": (
        "log:\n  zzz: 1\n",
        ["20.yaml:2: log: unknown key 'zzz', known here: level"],
    ),
    "Consul by plain HTTP from afar": (
        "sources: {consul: {address: 'http://consul.example:8500'}}\n",
        [
            "20.yaml:1: sources.consul.address: 'http://consul.example:8500': the token could be read on the way, write https://consul.example:8500 (http:// is for loopback addresses)",
        ],
    ),
    "a wrong source": (
        "sources: {consul: {require_tag: a b, token_file: token, addrez: x}}\n",
        [
            "20.yaml:1: sources.consul: unknown key 'addrez', did you mean 'address'?",
            "20.yaml:1: sources.consul.token_file: 'token' is not the absolute path of a file",
            "20.yaml:1: sources.consul.require_tag: 'a b' is not a tag such as vmoor",
        ],
    ),
    "key in the wrong place": (
        "vault: {role_id: x}\ndns_capture: true\nservices: {web: {period: 1s}}\n",
        [
            "20.yaml:1: vault: unknown key 'role_id', it belongs in vault.auth",
            "20.yaml:2: unknown key 'dns_capture', it belongs in interception",
            "20.yaml:3: services.web: unknown key 'period', it belongs in services.NAME.checks[0]",
        ],
    ),
    "a hook that is no command": (
        "hooks: {moored: notify, drained: [drained, now], left: [/bin/x]}\n",
        [
            "20.yaml:1: hooks: unknown key 'left', known here: drained, moored",
            "20.yaml:1: hooks.moored: 'notify' is not a list such as [/usr/local/bin/check-web, --quick], of at most 64",
            "20.yaml:1: hooks.drained[0]: 'drained' is not the absolute path of a program",
        ],
    ),
    "a cloud that nobody knows": (
        "leave: {notices: ec2, metadata: 169.254.169.254}\n",
        [
            "20.yaml:1: leave.notices: 'ec2' is not one of none, auto, aws, gce, azure",
            "20.yaml:1: leave.metadata: '169.254.169.254' is not a URL such as http://169.254.169.254",
        ],
    ),
    "unknown key at the top": (
        "\nserivces: {}\n",
        ["20.yaml:2: unknown key 'serivces', did you mean 'services'?"],
    ),
    "a key of a later version": (
        "services: {web: {checks: [{udp: 1}]}}\n",
        [
            "20.yaml:1: services.web.checks[0]: unknown key 'udp', known here: critical, exec, "
            "failure_threshold, file, group, grpc, http, initial_delay, period, process, success_threshold, tcp, timeout, ttl",
            "20.yaml:1: services.web.checks[0]: needs http, tcp, grpc, exec, file, process or ttl",
        ],
    ),
    "critical without a weight": (
        "services:\n  web:\n    checks:\n    - {tcp: true, critical: false}\n",
        [
            "20.yaml:4: services.web.checks[0].critical: false lowers the service's weight, and it has none: "
            "add `weight: 100` to the services of this name on all VMs first",
        ],
    ),
    "exec of a socket": (
        "sources: {sockets: {allow: {81: {name: db, checks: [{exec: [/bin/a]}]}}}}\n",
        [
            "20.yaml:1: sources.sockets.allow.81.checks[0]: exec is for `services` only: declare it there"
        ],
    ),
    "exec source": (
        "sources:\n"
        "  exec:\n"
        "    command: [list, 1]\n"
        "    period: 4s\n"
        "    timeout: 5s\n"
        "    output: x\n",
        [
            '20.yaml:3: sources.exec.command[1]: 1 is a number, not a program\'s argument: write it in quotes, "1"',
            "20.yaml:3: sources.exec.command[0]: 'list' is not the absolute path of a program",
            "20.yaml:4: sources.exec.period: 4s is too short, write 5s or more",
            "20.yaml:5: sources.exec.timeout: 5s is longer than the period (4s); a run must end first",
            "20.yaml:6: sources.exec: unknown key 'output', known here: command, period, timeout",
        ],
    ),
    "exec source without a command, without time": (
        "sources: {exec: {timeout: 0s}}\n",
        [
            "20.yaml:1: sources.exec: 'command' is missing, add `command: [/usr/local/bin/list-services]`",
            "20.yaml:1: sources.exec.timeout: 0 would end every run, write 10s",
        ],
    ),
    "sources": (
        "sources:\n"
        "  systemd: {units: [shop]}\n"
        "  file: {}\n"
        "  sockets:\n"
        "    allow:\n"
        "      99999: web\n"
        "      15001: api\n"
        "      80: api\n"
        "      81: {name: db, checks: [{tcp: true, timeout: 9s}]}\n"
        "      82: {weight: 1}\n"
        "      ssh: db\n",
        [
            "20.yaml:2: sources.systemd.units[0]: 'shop' is not a service unit or a pattern such as shop-*.service",
            "20.yaml:3: sources.file: 'path' is missing, add `path: /run/shop/services.json`",
            "20.yaml:6: sources.sockets.allow.99999: 99999 is not a port (1 to 65535)",
            "20.yaml:7: sources.sockets.allow.15001: 15001 is a port of the proxy itself; choose another",
            "20.yaml:8: sources.sockets.allow.80: api is already the name of port 15001",
            "20.yaml:9: sources.sockets.allow.81.checks[0].timeout: 9s is longer than the period (5s, the default); a probe must end first",
            "20.yaml:10: sources.sockets.allow.82: 'name' is missing, add `name: web`",
            "20.yaml:11: sources.sockets.allow.ssh: 'ssh' is not a port (1 to 65535)",
        ],
    ),
    "a drain longer than a stop": (
        "leave: {on_stop: maybe}\ndrain: {timeout: 1m}\n",
        [
            "20.yaml:1: leave.on_stop: 'maybe' is not true or false",
            "20.yaml:2: drain.timeout: 1m is longer than systemd waits for a stop (at most 30s)",
        ],
    ),
    "port 0": (
        "# a comment\nservices:\n  web:\n    port: 0\n",
        ["20.yaml:4: services.web.port: 0 is not a port (1 to 65535)"],
    ),
    "port too high": (
        "services: {web: {port: 65536}}\n",
        ["20.yaml:1: services.web.port: 65536 is not a port (1 to 65535)"],
    ),
    "port in quotes": (
        'services:\n  web:\n    port: "8080"\n',
        [
            "20.yaml:3: services.web.port: '8080' is text, not a port (1 to 65535): remove the quotes"
        ],
    ),
    "port with a fraction": (
        "services: {web: {port: 8080.0}}\n",
        ["20.yaml:1: services.web.port: 8080.0 is not a port (1 to 65535)"],
    ),
    "list for a mapping": (
        "services:\n- web\n",
        ["20.yaml:1: services: a list is not a mapping"],
    ),
    "text for a list": (
        "services: {web: {checks: http}}\n",
        ["20.yaml:1: services.web.checks: 'http' is not a list such as [{http: /healthz}]"],
    ),
    "number for a text": (
        "vault: {auth: {role_id: 0123}}\n",
        [
            "20.yaml:1: vault.auth.role_id: 0123 is a number, not a RoleID such as shop-web: "
            'write it in quotes, "0123"'
        ],
    ),
    "truth for a text": (
        "workload: {labels: {beta: yes}}\n",
        [
            '20.yaml:1: workload.labels.beta: yes is true or false, not text: write it in quotes, "yes"'
        ],
    ),
    "text for truth": (
        'interception: {dns_capture: "false"}\n',
        [
            "20.yaml:1: interception.dns_capture: 'false' is text, not true or false: remove the quotes"
        ],
    ),
    "no value": (
        "services:\n  api:\n",
        [
            "20.yaml:2: services.api: has no value: give it a mapping such as {port: 8080}, "
            "or remove the line"
        ],
    ),
    "one of few words": (
        "interception: {mode: redirekt}\nlog: {level: 5}\n",
        [
            "20.yaml:1: interception.mode: 'redirekt' is not known, did you mean 'redirect'?",
            "20.yaml:2: log.level: 5 is not one of debug, info, warning, error",
        ],
    ),
    "duration without unit": (
        "services: {web: {checks: [{http: /, period: 5}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].period: 5 is not a duration such as 10s or 500ms, "
            "write 5s"
        ],
    ),
    "exec of a relative path": (
        "services: {web: {checks: [{exec: [check-web, -q]}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].exec[0]: 'check-web' is not the absolute path of a program"
        ],
    ),
    "exec of a line, of nothing, of a number": (
        "services: {web: {checks: [{exec: /bin/a -q}, {exec: []}, {exec: [/bin/a, 1]}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].exec: '/bin/a -q' is not a list such as "
            "[/usr/local/bin/check-web, --quick], of at most 64",
            "20.yaml:1: services.web.checks[1].exec: is empty: give it a list such as "
            "[/usr/local/bin/check-web, --quick], of at most 64",
            "20.yaml:1: services.web.checks[2].exec[1]: 1 is a number, not a program's argument: "
            'write it in quotes, "1"',
        ],
    ),
    "timeout longer than the period": (
        "services:\n  web:\n    checks:\n    - http: /\n      period: 1s\n      timeout: 2s\n",
        [
            "20.yaml:6: services.web.checks[0].timeout: 2s is longer than the period (1s); "
            "a probe must end first"
        ],
    ),
    "timeout longer than the default period": (
        "services: {web: {checks: [{tcp: null, timeout: 10s}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].timeout: 10s is longer than the period (5s, the default);"
            " a probe must end first"
        ],
    ),
    "no time at all": (
        "services: {web: {checks: [{tcp: 1, timeout: 0s}]}}\n",
        ["20.yaml:1: services.web.checks[0].timeout: 0 would fail every probe, write 1s"],
    ),
    "period too short": (
        "services: {web: {checks: [{tcp: 1, period: 100ms}]}}\n",
        ["20.yaml:1: services.web.checks[0].period: 100ms is too short, write 200ms or more"],
    ),
    "a check of nothing, and of two things": (
        "services:\n  web:\n    checks:\n    - {}\n    - http: /\n      tcp: 1\n",
        [
            "20.yaml:4: services.web.checks[0]: needs http, tcp, grpc, exec, file, process or ttl",
            "20.yaml:6: services.web.checks[1]: has http and tcp; keep one of them",
        ],
    ),
    "a process that is looked at": (
        "services:\n  web:\n    checks:\n    - process: web.pid\n"
        "    - process: {pid_file: /run/web.pid}\n      period: 1s\n"
        "      failure_threshold: 3\n",
        [
            "20.yaml:4: services.web.checks[0].process: 'web.pid' is not the absolute path of a file",
            "20.yaml:6: services.web.checks[1].period: a process is not looked at but heard of; "
            "remove the line",
            "20.yaml:7: services.web.checks[1].failure_threshold: a process is not looked at but "
            "heard of; remove the line",
        ],
    ),
    "an application that speaks and is looked at": (
        "services:\n  web:\n    checks:\n    - {ttl: 500ms, group: 'a b'}\n"
        "    - ttl: 30s\n      period: 1s\n      failure_threshold: 3\n    - {tcp: 1, group: app}\n",
        [
            "20.yaml:4: services.web.checks[0].group: 'a b' is not the name of a group such as app",
            "20.yaml:4: services.web.checks[0].ttl: 500ms is too short, write 1s or more",
            "20.yaml:5: services.web.checks[1].ttl: a service has one ttl check; remove this one",
            "20.yaml:6: services.web.checks[1].period: an application that speaks for itself is not looked at but heard of; remove the line",
            "20.yaml:7: services.web.checks[1].failure_threshold: an application that speaks for itself is not looked at but heard of; remove the line",
            "20.yaml:8: services.web.checks[2].group: belongs to a ttl check; remove the line",
        ],
    ),
    "a ttl of a socket": (
        "sources: {sockets: {allow: {81: {name: db, checks: [{ttl: 30s}]}}}}\n",
        [
            "20.yaml:1: sources.sockets.allow.81.checks[0]: ttl is for `services` only: declare it there"
        ],
    ),
    "http without a path": (
        "services: {web: {checks: [{http: {port: 1}}, {http: healthz}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].http: 'path' is missing, add `path: /healthz`",
            "20.yaml:1: services.web.checks[1].http: 'healthz' is not a path such as /healthz",
        ],
    ),
    "http to a port that is not there": (
        "services: {web: {checks: [{http: {path: /, port: admin}}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].http.port: there is no port 'admin' here, write http or a number"
        ],
    ),
    "http to one of several ports": (
        "services: {db: {ports: {mysql: 3306, admin: 81}, checks: [{http: /}]}}\n",
        [
            "20.yaml:1: services.db.checks[0].http: which port? The service has several; "
            "add `port: ` with admin or mysql"
        ],
    ),
    "status range upside down": (
        "services: {web: {checks: [{http: {path: /, status: 299-200}}]}}\n",
        ["20.yaml:1: services.web.checks[0].http.status: 299-200 is upside down, write 200-299"],
    ),
    "the body of an answer to HEAD": (
        "services: {web: {checks: [{http: {path: /, method: HEAD, body: ok}}]}}\n",
        [
            "20.yaml:1: services.web.checks[0].http.body: an answer to HEAD has no body; "
            "use method: GET"
        ],
    ),
    "half a client certificate, and tls: false": (
        "services: {web: {checks: [{http: {path: /, tls: {cert: /c}}}, {http: {path: /, tls: false}}]}}\n",
        [
            "20.yaml:1: services.web.checks[1].http.tls: false is not true, nor a mapping such as {ca: /etc/web/ca.pem}",
            "20.yaml:1: services.web.checks[0].http.tls: has one of cert and key; it needs both or neither",
        ],
    ),
    "grpc to no port": (
        "services:\n"
        "  api:\n"
        "    ports: {http: 81, admin: 82}\n"
        "    checks:\n"
        "    - grpc: true\n"
        "    - grpc: {port: sql}\n"
        "    - grpc: 0\n"
        "    - grpc: {port: 81, service: a b}\n",
        [
            "20.yaml:5: services.api.checks[0].grpc: which port? The service has several; add `port: ` with admin or http",
            "20.yaml:6: services.api.checks[1].grpc.port: there is no port 'sql' here, write admin or http or a number",
            "20.yaml:7: services.api.checks[2].grpc: 0 is not a port (1 to 65535)",
            "20.yaml:8: services.api.checks[3].grpc.service: 'a b' is not a gRPC service such as shop.Cart, of at most 127 characters",
        ],
    ),
    "a word that is a key of tls elsewhere": (
        "vault: {ca: /x}\n",
        ["20.yaml:1: vault: unknown key 'ca', known here: address, auth, ca_cert, namespace"],
    ),
    "port and ports": (
        "services:\n  web:\n    ports: {http: 8080}\n",
        ["20.yaml:3: services.web: has port and ports; keep one of them"],
    ),
    "no port": (
        "services:\n  api: {}\n",
        ["20.yaml:2: services.api: needs port or ports"],
    ),
    "two services with one port": (
        "services:\n  api: {ports: {grpc: 8080}}\n",
        [
            "20.yaml:2: services.api.ports.grpc: 8080 is already the port of service 'web'; one is wrong"
        ],
    ),
    "a port of the proxy": (
        "services: {web: {port: 15001}}\n",
        ["20.yaml:1: services.web.port: 15001 is a port of the proxy itself; choose another"],
    ),
    "a name that is no name": (
        "services: {Web_2: {port: 80}}\n",
        [
            "20.yaml:1: services.Web_2: 'Web_2' is not a service name "
            "(lower-case letters, digits and dashes, at most 63)"
        ],
    ),
    "a name with a line end": (
        'workload: {name: "web\\n"}\n',
        [
            "20.yaml:1: workload.name: 'web' is not a DNS label "
            "(lower-case letters, digits and dashes, at most 63)"
        ],
    ),
    "a unit without its ending": (
        "services: {web: {unit: web}}\n",
        ["20.yaml:1: services.web.unit: 'web' is not a service unit such as web.service"],
    ),
    "a generic machine name": (
        "vm: {name: localhost}\n",
        [
            "20.yaml:1: vm.name: 'localhost' is the name of many machines; choose one that no other "
            "VM of the namespace has, or remove the line to take the instance ID"
        ],
    ),
    "a machine's address": (
        "vm:\n  address: 10.0.0.300\n  cidr: 10.0.0.1/8\n",
        [
            "20.yaml:2: vm.address: '10.0.0.300' is neither an IP address such as 10.0.1.17 nor cloud-public",
            "20.yaml:3: vm: has address and cidr; keep one of them",
            "20.yaml:3: vm.cidr: '10.0.0.1/8' is an address inside a network, write 10.0.0.0/8",
        ],
    ),
    "an address of IPv6": (
        "vm: {address: 'fd00::7'}\n",
        ["20.yaml:1: vm.address: 'fd00::7' is IPv6; the mesh reaches VMs by IPv4 only"],
    ),
    "a network of IPv6": (
        "vm: {cidr: 'fd00::/8'}\ninterception: {exclude: {cidrs: ['fd00::/8']}}\n",
        ["20.yaml:1: vm.cidr: 'fd00::/8' is IPv6; the mesh reaches VMs by IPv4 only"],
    ),
    "an address that nobody reaches": (
        "vm: {address: 127.0.0.1}\n",
        ["20.yaml:1: vm.address: '127.0.0.1' is no address at which others reach this VM"],
    ),
    "labels": (
        "workload:\n  labels:\n    app.kubernetes.io/managed-by: me\n    vmoor.io/vm: x\n"
        "    A B: c\n    ok: a/b\nvm: {labels: {X/y: z}}\n",
        [
            '20.yaml:3: workload.labels["app.kubernetes.io/managed-by"]: is vmoor\'s own label; '
            "choose another",
            '20.yaml:4: workload.labels["vmoor.io/vm"]: is vmoor\'s own label; choose another',
            f'20.yaml:5: workload.labels["A B"]: is not a label\'s key: {LABEL}',
            f"20.yaml:6: workload.labels.ok: 'a/b' is not a label's value: {LABEL}",
            '20.yaml:7: vm.labels["X/y"]: is not a label\'s key: before the slash stands a DNS name, '
            "such as example.com/tier",
        ],
    ),
    "variables of labels": (
        "services:\n  web:\n    labels:\n      near: 'x-{zome}'\n      far: '{q}'\n      open: 'x-{zone'\n"
        "      dash: '-{zone}'\n      bare: {zone}\nvm: {labels: {ok: '{vm}.{subzone}', no: '{Zone}'}}\n"
        "workload: {labels: {all: 'in-{zone}'}}\n",
        [
            "20.yaml:4: services.web.labels.near: there is no variable {zome}, did you mean {zone}?",
            "20.yaml:5: services.web.labels.far: there is no variable {q}, there are {vm}, {instance_id}, {region}, {zone} and {subzone}",
            f"20.yaml:6: services.web.labels.open: 'x-{{zone' is not a label's value: {LABEL}",
            f"20.yaml:7: services.web.labels.dash: '-{{zone}}' is not a label's value: {LABEL}",
            '20.yaml:8: services.web.labels.bare: {zone} is a mapping, not text: write it in quotes, "{zone}"',
            "20.yaml:9: vm.labels.no: there is no variable {Zone}, did you mean {zone}?",
            "20.yaml:10: workload.labels.all: 'in-{zone}' would differ between the VMs of the workload, which its policies may not; variables are for the labels of services and of vm",
        ],
    ),
    "Vault without TLS": (
        "vault:\n  address: http://vault.example:8200\n",
        [
            "20.yaml:2: vault.address: 'http://vault.example:8200': the login could be read on the way, "
            "write https://vault.example:8200 (http:// is for loopback addresses)"
        ],
    ),
    "Vault's addresses": (
        'vault:\n  address:\n  - vault:8200\n  - "https://u:hunter2@vault"\n',
        [
            f"20.yaml:3: vault.address[0]: 'vault:8200' is not {URL}",
            f"20.yaml:4: vault.address[1]: 'https://***@vault' is not {URL}",
        ],
    ),
    "no address of Vault": (
        "vault: {address: []}\n",
        ["20.yaml:1: vault.address: is empty: give it one URL or more"],
    ),
    "the secret in place of its file": (
        "vault: {auth: {secret_id_file_path: 7c1d-hunter2}}\n",
        [
            "20.yaml:1: vault.auth.secret_id_file_path: the value (not shown) is not "
            "the absolute path of a file"
        ],
    ),
    "the API's path of a secret": (
        "mesh: secret/data/vmoor/mesh-a\n",
        [
            "20.yaml:1: mesh: 'secret/data/vmoor/mesh-a' is the API's path, "
            "write the secret's own: secret/vmoor/mesh-a"
        ],
    ),
    "the API's path below a mount": (
        "mesh: {vault_kv: {mount: a/b, path: data/mesh-a}}\n",
        [
            "20.yaml:1: mesh.vault_kv.path: 'data/mesh-a' is the API's path, "
            "write the secret's own: mesh-a"
        ],
    ),
    "no secret at all": (
        "mesh: mesh-a\n",
        ["20.yaml:1: mesh: 'mesh-a' is not MOUNT/PATH of a KV secret such as secret/vmoor/mesh-a"],
    ),
    "exclusions": (
        "interception:\n  exclude:\n    inbound_ports: 22\n    cidrs: [10.0.0.1, x]\n",
        [
            "20.yaml:3: interception.exclude.inbound_ports: 22 is not a list of ports",
            "20.yaml:4: interception.exclude.cidrs[0]: '10.0.0.1' has no prefix length, "
            "write 10.0.0.1/32",
            "20.yaml:4: interception.exclude.cidrs[1]: 'x' is not a network such as 10.0.0.0/16",
        ],
    ),
    "duplicate service": (
        "services:\n  web: {weight: 1}\n  web: {weight: 2}\n",
        ["20.yaml:3: services.web: stands here a second time, first in line 2; merge the two"],
    ),
    "a tab": ("vault:\n\taddress: x\n", ["20.yaml:2: a tab; YAML is indented with spaces"]),
    "not UTF-8": (
        b"# \xc3\xa9\n# \xe9\n",
        ["20.yaml:2: byte 0xe9 is not UTF-8; save the file as UTF-8"],
    ),
    "a control character": (
        "a: 1\nb: \x07\n",
        ["20.yaml:2: the character 0x07 is not allowed in YAML; remove it"],
    ),
    "an open quote": ('vault: {address: "https://v\n', ["20.yaml:2: a quote is not closed"]),
    "an open bracket": (
        "services: {web: {port: 1}\n",
        ["20.yaml:2: a bracket is not closed or a comma is missing"],
    ),
    "a colon too many": (
        "mesh: a/b\nlog: level: info\n",
        ["20.yaml:2: a colon too many: check the indentation, or quote the value"],
    ),
    "two documents": (
        "log: {}\n---\nlog: {}\n",
        ["20.yaml:2: a second document (---); one file holds one"],
    ),
    "a template": (
        "vm:\n  name: {{ ds.meta_data.name }}\n",
        ["20.yaml:2: vm.name: a key that is no word: a template {{ }} that was not filled in?"],
    ),
    "not a mapping": (
        "# services\n- web\n",
        ["20.yaml:2: not a mapping: the file must be made of lines such as `vault: ...`"],
    ),
    "an alias of nothing": (
        "mesh: *mesh\n",
        ["20.yaml:1: an alias (*) without its anchor (&): quote the value if it is text"],
    ),
    "a tag": (
        "proxy: {config: !!python/name:os.system {}}\n",
        ["20.yaml:1: proxy.config: the tag !!python/name:os.system is not known; remove it"],
    ),
    "a YAML bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{k}: &{k} [{','.join(['*' + p] * 9)}]\n" for p, k in zip("abcdefgh", "bcdefghi")
        ),
        ["20.yaml:1: more than 20000 values (aliases count each time)"],
    ),
    "no number": (
        "proxy: {concurrency: .inf}\n",
        ["20.yaml:1: proxy.concurrency: looks like a number but is none; quote it"],
    ),
    "a value inside itself": ("a: &a [*a]\n", ["20.yaml:1: nested deeper than 40 levels"]),
    "a deep file": ("a: " + "[" * 5000 + "\n", ["20.yaml:1: nested deeper than 40 levels"]),
    "a long file": (
        "#" * (1 << 20) + "\n",
        ["20.yaml: larger than 1 MiB; that is no configuration"],
    ),
}


@pytest.mark.parametrize("name", ADDED)
def test_broken_drop_in(tmp_path: Path, name: str) -> None:
    """Each problem is told with file, line, what is wrong and what helps; and nothing else is."""
    content, lines = ADDED[name]
    assert told(write(tmp_path, **{"10": GOOD, "20": content})) == lines
