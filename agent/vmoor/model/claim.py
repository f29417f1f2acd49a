"""One address is one VM: two that register under it would take each other's requests.

The Lease of a VM that registers carries its address as a label. Who lives is judged as for the
VM's name, by `lease.judge`. The address is proven to be ours when nobody else is found with it
after our own label was written: of two that claim it at once, the later one finds the other.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Optional

from vmoor.model import entry, lease
from vmoor.model.entry import Object, Owner
from vmoor.model.lease import Lock, Seen, Verdict
from vmoor.model.machine import Machine

ADDRESS = "vmoor.io/address"


class State(enum.Enum):
    OURS = "ours"
    UNKNOWN = "unknown"  # not asked yet, or the API server does not answer
    TAKEN = "taken"  # another VM lives under it


@dataclass(frozen=True)
class Claimed:
    """What is known of one address, in one term of our lock: after a lapse it may be another's."""

    label: str = ""
    since: float = 0.0  # Lock.since of that term
    state: State = State.UNKNOWN

    def under(self, label: str, lock: Lock) -> State:
        same = (self.label, self.since) == (label, lock.since)
        return self.state if same else State.UNKNOWN


class Claim(NamedTuple):
    """`seen`: what is remembered of the others, by VM. `words` "" = the address is free."""

    seen: Mapping[str, Seen] = {}
    words: str = ""
    lives: bool = False  # the other one; False = not known yet
    again: float = 0.0


def form(address: str, network: str = "") -> str:
    """As a label: at most 63 characters, and a colon, of IPv6, is none of them.

    Networks of a mesh may use the same addresses, each for itself.
    """
    digest = hashlib.sha256(network.encode()).hexdigest()[:8]
    return address.replace(":", "-") + (f".{digest}" if network else "")


def carried(thing: Object) -> str:
    return entry.labels(thing).get(ADDRESS, "")


def carrying(thing: Object, form: str) -> Object:
    """The same Lease with this address, "" = with none."""
    meta = entry.metadata(thing)
    labels = {key: value for key, value in entry.labels(thing).items() if key != ADDRESS}
    own = {ADDRESS: form} if form else {}
    return {**thing, "metadata": {**meta, "labels": {**labels, **own}}}


def wanted(asked: Optional[str], old: Optional[Object], machine: Machine) -> str:
    """The label of the next beat; `asked` None = none yet, and a restart keeps what there is.

    What an earlier boot claimed may be another's by now.
    """
    if asked is not None:
        return asked
    return carried(old) if old is not None and lease.held_by(old, machine) else ""


def selector(label: str) -> str:
    return f"{entry.SELECTOR},{ADDRESS}={label}"


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
        if lease.same_machine(holder, machine) or _abandoned(each):  # or it had another name
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


def _abandoned(thing: Object) -> bool:
    """By a leave, or by its end: the next beat of who lives is without the tombstone."""
    return not lease.holder_of(thing) or lease.TOMBSTONE in entry.notes(thing)
