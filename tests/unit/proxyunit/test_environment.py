"""What the agent writes into proxy.env reaches pilot-agent only as far as the allow-list goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vmoor.adapters import templates
from vmoor.model.service import Workload
from vmoor.proxyunit import environment

TEMPLATES = str(Path(__file__).parents[3] / "templates")
PROGRAMS = "VMOOR_PILOT_AGENT=/opt/pilot-agent\nVMOOR_ENVOY=/opt/envoy\n"
PARAMETERS = {
    "instance_ip": "10.0.0.7", "pod_name": "vm-1", "namespace": "shop", "service_account": "web",
    "trust_domain": "cluster.local", "cluster_id": "Kubernetes", "mesh_id": "", "network": "",
    "labels": dict(Workload("shop", "web", "web", {"version": "v2"}).mesh_labels),
    "workload_name": "web", "locality": "eu/eu-a",
    "revision": "", "istiod_san": "istiod.istio-system.svc", "discovery": "198.18.0.1:15012",
    "root_ca_path": "/run/vmoor-proxy/root-cert.pem", "dns_capture": True,
    "interception_mode": "REDIRECT", "pilot_agent": "/opt/pilot-agent", "envoy": "/opt/envoy",
    "bootstrap_template": "/opt/bootstrap.json", "concurrency": None, "proxy_config": {},
}  # fmt: skip


def test_values_are_the_rest_of_the_line() -> None:
    """No quoting: equals signs, quotes and spaces in a value stay."""
    found = environment.parse(PROGRAMS + 'ISTIO_METAJSON_LABELS={"a": "b=c \'d\'"}\n')
    assert found.variables["ISTIO_METAJSON_LABELS"] == '{"a": "b=c \'d\'"}'


@pytest.mark.parametrize(
    "key",
    ["LD_PRELOAD", "PATH", "PYTHONPATH", "PROXY_CONFIG", "CA_ADDR", "GODEBUG", "NOTIFY_SOCKET",
     "ISTIO_BOOTSTRAP_OVERRIDE", "ISTIO_META_lower", "ISTIO_META_AUTO_REGISTER_GROUP",
     "", " PATH"],
)  # fmt: skip
def test_other_keys_are_refused(key: str) -> None:
    """A key that is not known to be needed stops the proxy, with the line's number."""
    with pytest.raises(environment.Refused, match=r"proxy\.env:3: the key .* is not permitted"):
        environment.parse(f"{PROGRAMS}{key}=x\n")


@pytest.mark.parametrize(
    ("line", "reason"),
    [("POD_NAME", "not KEY=VALUE"), ("VMOOR_ENVOY=/tmp/x", "twice"),
     ("POD_NAME=a\x00b", "control character"), ("POD_NAME=a\rb", "control character")],
)  # fmt: skip
def test_broken_lines_are_refused(line: str, reason: str) -> None:
    """A second value for a key, which a line break in a value could smuggle in, among them."""
    with pytest.raises(environment.Refused, match=reason):
        environment.parse(f"{PROGRAMS}{line}\n")


def test_the_programs_are_needed_and_not_passed_on() -> None:
    """They are for the launcher; pilot-agent gets the checked Envoy in a way that overrules."""
    with pytest.raises(environment.Refused, match="VMOOR_ENVOY is missing"):
        environment.parse("VMOOR_PILOT_AGENT=/opt/pilot-agent\n")
    found = environment.parse(PROGRAMS)
    assert (found.pilot_agent, found.envoy) == ("/opt/pilot-agent", "/opt/envoy")
    assert json.loads(found.variables["PROXY_CONFIG"]) == {"binaryPath": "/opt/envoy"}
    assert set(found.variables) == {"PATH", "LANG", "PROXY_CONFIG"}


def test_the_template_passes_its_own_launcher() -> None:
    """What the shipped template renders is permitted, and says what Istio needs to know."""
    files = templates.render(PARAMETERS, [TEMPLATES])
    found = environment.parse(files["proxy.env"])
    variables = found.variables
    assert variables["ISTIOD_SAN"] == "istiod.istio-system.svc"
    assert "CA_ADDR" not in variables
    assert variables["PROV_CERT"] == variables["OUTPUT_CERTS"] == "./etc/certs"
    assert "ISTIO_META_NETWORK" not in variables
    assert json.loads(variables["ISTIO_METAJSON_LABELS"]) == {
        "app": "web",
        "version": "v2",
        "istio-locality": "eu/eu-a",
        "service.istio.io/canonical-name": "web",
        "service.istio.io/canonical-revision": "v2",
    }


def test_the_users_proxy_config_comes_last() -> None:
    """Keys of `proxy_config` replace those that are derived."""
    parameters = {**PARAMETERS, "concurrency": 2, "proxy_config": {"concurrency": 4}}
    lines = templates.render(parameters, [TEMPLATES])["mesh.yaml"].splitlines()
    assert lines[0] == "defaultConfig:"
    assert '  "concurrency": 4' in lines
    assert '  "discoveryAddress": "198.18.0.1:15012"' in lines
