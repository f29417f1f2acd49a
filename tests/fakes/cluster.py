"""A small API server: versions, field owners, atomic lists, preconditions, watches.

Contract tests hold it against the real one. `calls` lists what was asked of it, so that a test
can promise that nothing was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Optional

from vmoor.errors import Conflict, Unavailable, VmoorError
from vmoor.ports import Change, Kind, Object

MANAGER = "vmoor"
WATCH_S = 600.0
SERVERS_OWN = ("name", "namespace", "uid", "managedFields")  # of the metadata: no PUT changes it


class FakeCluster:
    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.events: list[str] = []
        self.refuse: Callable[[str, str], Optional[VmoorError]] = lambda _verb, _name: None
        self.lose: Callable[[str, str], Optional[VmoorError]] = lambda _verb, _name: None
        self.before: Callable[[str, str], None] = lambda _verb, _name: None
        self.latency = 0.0  # seconds that each call takes of the clock of `spend`
        self.spend: Callable[[float], object] = lambda _seconds: None
        self._things: dict[tuple[Kind, str], dict[str, Any]] = {}
        self._history: list[tuple[int, Kind, str, dict[str, Any]]] = []
        self._oldest = 0
        self._version = 100
        self._uid = 0

    # -- port Cluster -------------------------------------------------------------------------

    def within(self, namespace: str) -> FakeCluster:
        """It has one namespace only, which is any."""
        return self

    def get(self, kind: Kind, name: str, *, deadline: float) -> Optional[Object]:
        self._enter("get", name, deadline)
        return copy.deepcopy(self._things.get((kind, name)))

    def list(self, kind: Kind, selector: str, *, deadline: float) -> tuple[Sequence[Object], str]:
        self._enter("list", selector, deadline)
        found = [t for (k, _), t in self._things.items() if k is kind and _selected(t, selector)]
        return copy.deepcopy(found), str(self._version)

    def create(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        name = body["metadata"]["name"]
        if kind is Kind.EVENT:  # told to people, beside `calls`
            self.events.append(str(body["reason"]))
            return body
        self._enter("create", name, deadline)
        if (kind, name) in self._things:
            raise Conflict(f"{name} already exists")
        thing = self._fresh(name)
        _merge(thing, _without_status(body))
        return self._leave("create", kind, name, thing, "ADDED")

    def replace(self, kind: Kind, body: Object, *, deadline: float) -> Object:
        name = body["metadata"]["name"]
        self._enter("replace", name, deadline)
        old = self._things.get((kind, name))
        if old is None and not body["metadata"].get("uid"):  # as the API server does for Leases
            thing = self._fresh(name)
            _merge(thing, _applied(body))
            return self._leave("replace", kind, name, thing, "ADDED")
        self._precondition(old, body["metadata"])
        assert old is not None
        thing = {**copy.deepcopy(dict(body)), "status": old.get("status")}
        kept = {k: old["metadata"][k] for k in SERVERS_OWN if k in old["metadata"]}
        thing["metadata"] = {**copy.deepcopy(body["metadata"]), **kept}
        if thing["status"] is None:
            del thing["status"]
        return self._leave("replace", kind, name, thing, "MODIFIED")

    def apply(
        self,
        kind: Kind,
        body: Object,
        *,
        force: bool,
        status: bool = False,
        manager: str = MANAGER,
        deadline: float,
    ) -> Object:
        name = body["metadata"]["name"]
        verb = "status" if status else "apply"
        self._enter(verb, name, deadline)
        old = self._things.get((kind, name))
        # A resourceVersion alone does not keep an apply from creating what is gone; a uid does.
        if status or old is not None or body["metadata"].get("uid"):
            self._precondition(old, body["metadata"])
        thing = copy.deepcopy(old) if old is not None else self._fresh(name)
        wanted = {"status": body["status"]} if status else _applied(body)
        part = "status" if status else ""
        self._own(thing, wanted, (manager, part), force=force)
        if thing == old:
            return thing
        return self._leave(verb, kind, name, thing, "MODIFIED" if old is not None else "ADDED")

    def delete(
        self, kind: Kind, name: str, *, uid: str, resource_version: str, deadline: float
    ) -> None:
        self._enter("delete", name, deadline)
        old = self._things.get((kind, name))
        if old is None:
            return
        self._precondition(old, {"uid": uid, "resourceVersion": resource_version})
        self.remove(kind, name)
        self._exit("delete", name)

    def watch(self, kind: Kind, selector: str, resource_version: str) -> Iterator[Change]:
        """What has happened since, then a bookmark; then the server ends it."""
        self._enter("watch", selector, WATCH_S)
        if int(resource_version) < self._oldest:
            raise Conflict("too old resource version")
        since, start = int(resource_version), len(self._history)
        while start and self._history[start - 1][0] > since:
            start -= 1
        for _, k, type_, thing in self._history[start:]:
            if k is kind:
                change = _seen(type_, thing, selector)
                if change is not None:
                    yield change
        meta = {"resourceVersion": str(self._version)}
        yield Change("BOOKMARK", {"kind": "WorkloadEntry", "metadata": meta})

    # -- what others do -----------------------------------------------------------------------

    def there(self, kind: Kind, name: str) -> Optional[dict[str, Any]]:
        """The truth, without asking for it."""
        return copy.deepcopy(self._things.get((kind, name)))

    def names(self, kind: Kind) -> set[str]:
        return {name for (k, name) in self._things if k is kind}

    def put(self, kind: Kind, body: Mapping[str, Any]) -> None:
        """Somebody else creates it, or writes over it, all fields theirs."""
        name = body["metadata"]["name"]
        known = (kind, name) in self._things
        thing = self._things.get((kind, name)) or self._fresh(name)
        meta = {**thing["metadata"], **copy.deepcopy(body["metadata"])}
        thing = {**copy.deepcopy(dict(body)), "metadata": meta}
        self._store(kind, name, thing, "MODIFIED" if known else "ADDED")

    def edit(self, kind: Kind, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Somebody else edits it."""
        thing = copy.deepcopy(self._things[kind, name])
        change(thing)
        self._store(kind, name, thing, "MODIFIED")

    def remove(self, kind: Kind, name: str) -> None:
        thing = self._things.pop((kind, name))
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, kind, "DELETED", thing))

    def forget_history(self) -> None:
        """What etcd's compaction does to a watch that comes back too late."""
        self._history.clear()
        self._version += 1
        self._oldest = self._version

    # -- inside -------------------------------------------------------------------------------

    def _enter(self, verb: str, name: str, deadline: float) -> None:
        self.calls.append((verb, name))
        self.before(verb, name)
        self.spend(min(self.latency, deadline))
        if self.latency > deadline:
            raise Unavailable(f"cannot {verb} {name}: no answer in time")
        error = self.refuse(verb, name)
        if error is not None:
            raise error

    def _exit(self, verb: str, name: str) -> None:
        """The write is done; its answer may get lost."""
        error = self.lose(verb, name)
        if error is not None:
            raise error

    def _leave(
        self, verb: str, kind: Kind, name: str, thing: dict[str, Any], type_: str
    ) -> Object:
        self._store(kind, name, thing, type_)
        self._exit(verb, name)
        return copy.deepcopy(thing)

    def _store(self, kind: Kind, name: str, thing: dict[str, Any], type_: str) -> None:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._things[kind, name] = thing
        self._history.append((self._version, kind, type_, copy.deepcopy(thing)))

    def _fresh(self, name: str) -> dict[str, Any]:
        self._uid += 1
        meta = {"name": name, "namespace": "shop", "uid": f"uid-{self._uid}"}
        return {"metadata": meta}

    def _precondition(self, old: Optional[Mapping[str, Any]], meta: Mapping[str, Any]) -> None:
        if old is None:
            raise Conflict("it is gone")
        for key in ("uid", "resourceVersion"):
            if meta.get(key) and meta[key] != old["metadata"][key]:
                raise Conflict(f"{key} is {old['metadata'][key]}, not {meta[key]}")

    def _own(
        self, thing: dict[str, Any], wanted: dict[str, Any], as_: tuple[str, str], *, force: bool
    ) -> None:
        """Server-side apply: take what is wanted, drop what we owned and want no more."""
        managers = thing["metadata"].get("managedFields", [])
        ours = next((m for m in managers if _is(m, as_)), None)
        owned = ours["fieldsV1"] if ours else {}
        if not force:
            taken = [p for p, v in _leaves(wanted) if _at(thing, p, v) != v and not _has(owned, p)]
            if taken:
                raise Conflict(f"conflict with another manager: {taken}")
        for path, _ in _paths(owned):
            if not _within(wanted, path):
                _drop(thing, path)
        _merge(thing, wanted)
        mine = {
            "manager": as_[0],
            "operation": "Apply",
            "fieldsV1": _fields(wanted),
            **({"subresource": as_[1]} if as_[1] else {}),
        }
        others = [m for m in managers if not _is(m, as_)]
        thing["metadata"]["managedFields"] = [*others, mine]


def _is(manager: Mapping[str, Any], as_: tuple[str, str]) -> bool:
    return (manager["manager"], manager.get("subresource", "")) == as_


def _without_status(body: Object) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in body.items() if key != "status"}


def _applied(body: Object) -> dict[str, Any]:
    wanted = _without_status(body)
    wanted["metadata"] = {
        key: value
        for key, value in wanted["metadata"].items()
        if key not in ("uid", "resourceVersion")
    }
    return wanted


def _merge(into: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    """Maps merge; lists (status.conditions) are atomic."""
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def _fields(wanted: Mapping[str, Any]) -> dict[str, Any]:
    skipped = ("apiVersion", "kind", "name")
    return {
        f"f:{key}": _fields(value) if isinstance(value, dict) else {}
        for key, value in wanted.items()
        if key not in skipped
    }


def _leaves(wanted: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for key, value in wanted.items():
        if path == () and key in ("apiVersion", "kind"):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        elif (*path, key) != ("metadata", "name"):
            yield (*path, key), value


def _paths(fields: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[Any, Any]]:
    for key, below in fields.items():
        if below:
            yield from _paths(below, (*path, key[2:]))
        else:
            yield (*path, key[2:]), None


def _at(thing: Any, path: Sequence[str], default: Any) -> Any:
    for key in path:
        if not isinstance(thing, dict) or key not in thing:
            return default
        thing = thing[key]
    return thing


def _has(fields: Mapping[str, Any], path: Sequence[str]) -> bool:
    missing = object()
    return _at(fields, [f"f:{key}" for key in path], missing) is not missing


def _within(wanted: Mapping[str, Any], path: Sequence[str]) -> bool:
    missing = object()
    return _at(wanted, path, missing) is not missing


def _drop(thing: dict[str, Any], path: Sequence[str]) -> None:
    parent = _at(thing, path[:-1], {})
    parent.pop(path[-1], None)


def _selected(thing: Mapping[str, Any], selector: str) -> bool:
    labels = thing["metadata"].get("labels") or {}
    return all(
        labels.get(key) == value for key, value in (t.split("=") for t in selector.split(",") if t)
    )


def _seen(type_: str, thing: Mapping[str, Any], selector: str) -> Optional[Change]:
    """What no longer matches is DELETED for this watch. What never did is told too, as gone."""
    if _selected(thing, selector):
        return Change(type_, copy.deepcopy(thing))
    return None if type_ == "ADDED" else Change("DELETED", copy.deepcopy(thing))
