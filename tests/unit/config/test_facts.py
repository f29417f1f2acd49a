from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from vmoor.config.facts import facts_from
from vmoor.errors import Misconfigured
from vmoor.model.facts import IstioFacts, KubernetesFacts, MeshFacts

from tests.unit.config.folders import PEM, facts


def refused(mapping: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(Misconfigured) as raised:
        facts_from(mapping, "secret/mesh-a")
    assert "vmoor admin publish" in raised.value.remedy
    return raised.value.problems


def test_good_facts() -> None:
    """What is not said has its default; what a later version adds is left alone."""
    given = facts()
    given["istio"].update(revision="canary", proxy_config={"a": 1}, later="x")
    given["later"] = True
    assert facts_from(given, "secret/mesh-a") == MeshFacts(
        KubernetesFacts(("https://198.18.0.1:6443",), PEM),
        IstioFacts(
            ("198.18.0.1:15012",),
            "istiod.istio-system.svc",
            PEM,
            revision="canary",
            proxy_config={"a": 1},
        ),
    )


def test_every_problem_at_once() -> None:
    """One line for each, with the source and the key."""
    given = facts()
    given["version"] = "1"
    given["kubernetes"] = {"server": "https://k:6443", "ca": PEM[:-30], "vault_mount": ""}
    given["istio"].update(discovery=[], san=7, network=None, cluster={}, proxy_config=[])
    del given["istio"]["root_ca"]
    assert refused(given) == (
        "secret/mesh-a: version: '1' is not a version that this agent knows (1)",
        "secret/mesh-a: kubernetes.server: 'https://k:6443' is not a list",
        "secret/mesh-a: kubernetes.ca: is not a PEM bundle of certificates "
        "(-----BEGIN CERTIFICATE----- ...)",
        "secret/mesh-a: kubernetes.vault_mount: '' is not a name",
        "secret/mesh-a: istio.discovery: is empty",
        "secret/mesh-a: istio.san: 7 is not a name",
        "secret/mesh-a: istio.root_ca: is missing",
        "secret/mesh-a: istio.cluster: a mapping is not a name",
        "secret/mesh-a: istio.proxy_config: a list is not a mapping",
    )


def test_an_empty_secret() -> None:
    """Every part that is missing is named."""
    assert refused({}) == (
        "secret/mesh-a: version: is missing",
        "secret/mesh-a: kubernetes: is missing",
        "secret/mesh-a: istio: is missing",
    )


def test_a_later_version_is_refused() -> None:
    """The facts' format can change: an agent does not guess."""
    given = {**facts(), "version": 2}
    assert refused(given) == (
        "secret/mesh-a: version: 2 is not a version that this agent knows (1)",
    )


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        (
            "kubernetes",
            "server",
            ["k:6443"],
            "'k:6443' is not a URL such as https://198.18.0.1:6443",
        ),
        ("kubernetes", "server", ["https://k:port"], "is not a URL"),
        ("kubernetes", "server", ["https://u:hunter2@k"], "'https://***@k' is not a URL"),
        ("istio", "discovery", ["https://k:15012"], "is not HOST:PORT"),
        ("istio", "discovery", ["k:99999"], "is not HOST:PORT"),
        ("istio", "root_ca", PEM.replace("MII", "!!!"), "a certificate that is cut or changed"),
        (
            "istio",
            "root_ca",
            PEM + "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
            "holds a private key: replace that key, and publish certificates only",
        ),
    ],
)
def test_single_values(part: str, key: str, value: object, words: str) -> None:
    """What cannot work is refused before it is tried, and secrets are not repeated."""
    given = facts()
    given[part][key] = value
    (line,) = refused(given)
    assert line.startswith(f"secret/mesh-a: {part}.{key}: ")
    assert words in line
    assert "hunter2" not in line


def test_the_daemon_stays_light() -> None:
    """Settings and facts are made without YAML and without the schema's validator."""
    code = (
        "import sys, vmoor.config.build, vmoor.config.facts;"
        "print({'yaml', 'jsonschema', 'click'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
