"""One address is one VM: two that register under it would take each other's requests.

The Lease of a VM that registers carries its address as a label. Who lives is judged as for the
VM's name, by `lease.judge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vmoor.model import entry, lease
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Seen, Verdict
from vmoor.model.machine import Machine

ADDRESS = "vmoor.io/address"


@dataclass(frozen=True)
class Claim:
    """`seen`: what is remembered of the others, by VM. `words` "" = the address is free."""

    seen: Mapping[str, Seen] = field(default_factory=dict)
    words: str = ""
    lives: bool = False  # the other one; False = not known yet
    again: float = 0.0


def form(address: str) -> str:
    """As a label: a colon, of IPv6, is no character of one."""
    return address.replace(":", "-")


def carried(thing: Object) -> str:
    return entry.labels(thing).get(ADDRESS, "")


def carrying(thing: Object, form: str) -> Object:
    """The same Lease with this address, "" = with none."""
    meta = entry.metadata(thing)
    labels = {key: value for key, value in entry.labels(thing).items() if key != ADDRESS}
    own = {ADDRESS: form} if form else {}
    return {**thing, "metadata": {**meta, "labels": {**labels, **own}}}


def selector(address: str) -> str:
    return f"{entry.MANAGED_BY}={entry.OWNER},{ADDRESS}={form(address)}"


def judge(
    leases: Sequence[Object],
    *,
    machine: Machine,
    seen: Mapping[str, Seen],
    asked: float,
    now: float,
) -> Claim:
    """`leases` carry the address; `asked` and `now`: before and after they were listed."""
    kept: dict[str, Seen] = {}
    found = Claim()
    for each in leases:
        labels = entry.labels(each)
        vm, account = labels.get(entry.VM, ""), labels.get(entry.SERVICE_ACCOUNT, "")
        holder = lease.holder_of(each)
        if lease.same_machine(holder, machine):  # it had another name before
            continue
        judged = lease.judge(
            each, machine=machine, owner=Owner(vm, account), sent="", seen=seen.get(vm),
            asked=asked, now=now,
        )  # fmt: skip
        still = judged.seen or seen.get(vm)
        if still is not None:
            kept[vm] = still
        lives = judged.verdict is Verdict.REFUSE
        if judged.verdict is not Verdict.BEAT and (lives or not found.words):
            words = f"VM {vm} ({holder}) {'lives' if lives else 'may live'} at this address"
            found = Claim(words=words, lives=lives, again=judged.again)
    return Claim(kept, found.words, found.lives, found.again)
