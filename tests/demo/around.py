"""How to look around in a demo that was kept."""

from __future__ import annotations

from collections.abc import Sequence

from tests.rig.machine import Machine
from tests.rig.rig import Rig

_ENV = "env -i TERM=$TERM HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin"


def enter(vm: Machine) -> str:
    return f"nsenter -t {vm.pid1} -m -u -i -n -p -C -- {_ENV}"


def lines(rig: Rig, vms: Sequence[Machine], client: Machine) -> Sequence[str]:
    web = vms[0]
    kubectl = (
        f"ip netns exec {rig.network.netns_name} env KUBECONFIG={rig.kube.kubeconfig}"
        f" {rig.bin / 'kubectl'} -n shop"
    )
    asked = {
        **{f"a shell in {vm.name}": f"{enter(vm)} bash -l" for vm in (*vms, client)},
        f"{web.name}'s unit": f"{enter(web)} systemctl status vmoor",
        f"{web.name}'s status": f"{enter(web)} vmoor status",
        "the client's curl": f"{enter(client)} curl -i http://web.shop.mesh/",
        "the cluster": f"{kubectl} get workloadentries,leases,serviceentries",
        "logs": str(rig.log_dir),
    }
    return [f"  {what:<18}  {command}" for what, command in asked.items()]
