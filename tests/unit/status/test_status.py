from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vmoor.cli import statusfile
from vmoor.cli.status import age, lines
from vmoor.model import status
from vmoor.model.discovered import Discovered
from vmoor.model.drain import Drained, Order
from vmoor.model.entry import EntryState
from vmoor.model.health import Health, Lapse, Verdict
from vmoor.model.lease import Beat, Lock
from vmoor.model.machine import Machine
from vmoor.model.proxy import ProxyState
from vmoor.model.selection import LISTED, Selection
from vmoor.model.service import Service, Workload
from vmoor.model.sight import Sight

OK = tuple(status.Step(name, "ok", "fine", since=10.0) for name in status.ORDER)
GOOD = status.Snapshot(
    version="0.1.0",
    now=100.0,
    offset=1_000_000.0,
    steps=OK,
    machine=Machine("i-0abc", "hash", "boot"),
    mesh="mesh-a",
    workload=Workload("shop", "web", "web"),
    discovered=Discovered(
        (Service("web", {"http": 8080}, ()),), "10.0.1.17", "eu-west-1/eu-west-1a"
    ),
    credentials=True,
    identity={"method": "approle", "role": "shop-web", "vault_expires": 1_001_540.0},
    proxy=ProxyState(live=True, words="live", since=90.0, mode="redirect + DNS"),
    lock=Lock(held=True),
    beat=Beat(at=99.0),
    verdicts={"web": Verdict(Health.HEALTHY, "Passed", "200 in 4ms", since=40.0)},
    entries=(EntryState("web", "web.i-0abc", "registered", "True"),),
    sights={"web": Sight(listed=True, agreed=41.0)},
)

NOBODY = Selection("False", "NotSelected", "is selected by nobody", "kubectl patch it")


def with_step(
    snap: status.Snapshot, name: str, state: str, words: str, fix: str = ""
) -> status.Snapshot:
    changed = tuple(
        status.Step(s.name, state, words, fix, 10.0, 118.0) if s.name == name else s
        for s in snap.steps
    )
    return replace(snap, steps=changed)


def text(snap: status.Snapshot, now: float = 1_000_100.0) -> str:
    return "\n".join(lines(status.document(snap), now, stale=False))


def test_all_fine_is_moored() -> None:
    """Credentials, live proxy, held lease and every healthy service registered: moored."""
    assert status.state(GOOD) == "moored"
    assert status.headline(GOOD) == "Moored, 1 service in the mesh"


def test_a_source_that_fails_is_told_last() -> None:
    """It is a risk, and never the reason for what another step waits for."""
    consul = status.Step("consul", "fail", "connection refused")
    snap = replace(GOOD, steps=(consul, *OK))
    assert status.state(snap) == "at-risk"
    assert status.headline(snap) == "Moored, at risk: consul fails: connection refused"
    waits = with_step(replace(snap, credentials=False), "identity", "wait", "no SecretID yet")
    assert status.headline(waits) == "Not moored: identity waits: no SecretID yet"


def test_an_application_that_has_not_spoken_yet_unmoors_nobody() -> None:
    """`vmoor wait` is not for its first word; a check that has not looked yet is waited for."""
    for reason, state in (("NothingHeard", "moored"), ("Checking", "not-moored")):
        waits = Verdict(Health.UNKNOWN, reason, "not known yet")
        assert status.state(replace(GOOD, verdicts={"web": waits})) == state


def test_a_failing_source_unmoors_nobody() -> None:
    """Neither alone nor together with a new service that has no verdict yet."""
    new = (*GOOD.discovered.services, Service("api", {"http": 9090}, ()))
    found = replace(GOOD.discovered, services=new, problems=("cannot read /run/s.json",))
    snap = with_step(replace(GOOD, before=True), "discovery", "fail", "cannot read /run/s.json")
    for each in (snap, replace(snap, discovered=found)):
        assert status.state(each) == "at-risk"
        assert status.headline(each) == (
            "Moored, at risk: discovery fails: cannot read /run/s.json"
        )
    first = text(snap).splitlines()[0]
    assert first == (
        "i-0abc  MOORED 10s, AT RISK: discovery  mesh-a  shop/web  10.0.1.17  eu-west-1/eu-west-1a"
    )


def test_a_new_service_without_a_verdict_unmoors_nobody() -> None:
    """Also while Vault is away; the count says that it is not in the mesh yet."""
    new = (*GOOD.discovered.services, Service("api", {"http": 9090}, ()))
    snap = replace(GOOD, discovered=replace(GOOD.discovered, services=new), before=True)
    assert status.headline(snap) == "Moored, 1 of 2 services in the mesh"
    assert status.state(with_step(snap, "identity", "fail", "vault is sealed")) == "at-risk"
    assert status.state(replace(snap, before=False)) == "not-moored"


def test_a_new_service_that_cannot_be_written_unmoors_the_vm() -> None:
    """It is healthy, and the mesh does not know it: the step that hinders it is the cause."""
    snap = replace(GOOD, entries=(), before=True)
    refused = with_step(snap, "registration", "fail", "no right to create workloadentries")
    assert status.document(refused)["blocked_at"] == "registration"
    assert status.state(refused) == "not-moored"


def test_a_lost_proxy_unmoors_at_once() -> None:
    """Whatever the steps say and whatever it was before; and the sentence says what is lost."""
    lost = replace(GOOD, proxy=ProxyState(words="deactivating"), before=True)
    assert status.state(lost) == "not-moored"
    assert status.headline(lost) == "Not moored: the proxy is not ready: deactivating"


def test_who_waits_for_a_verdict_is_not_blocked_by_a_source() -> None:
    """The agent has just started: the source is not what it waits for."""
    snap = with_step(replace(GOOD, verdicts={}), "discovery", "fail", "cannot read /run/s.json")
    assert status.headline(snap) == "Mooring: web not checked yet"
    early = replace(snap, discovered=Discovered())
    assert status.document(early)["blocked_at"] == "discovery"


def test_a_healthy_service_that_is_not_written_is_not_moored() -> None:
    """What the API server has not confirmed does not count."""
    assert status.state(replace(GOOD, entries=())) == "not-moored"


def test_nothing_found_yet_is_not_moored() -> None:
    """Without services because no source has looked: `vmoor wait` must not end then."""
    early = replace(GOOD, discovered=Discovered(), verdicts={}, entries=())
    assert status.state(early) == "not-moored"


def test_a_recovered_service_does_not_unmoor_the_vm() -> None:
    """Between a good verdict and its write the VM stays moored, if it was and nothing fails."""
    unwritten = (EntryState("web", "web.i-0abc", "registered", "False"),)
    assert status.state(replace(GOOD, entries=unwritten, before=True)) == "moored"
    assert status.state(replace(GOOD, entries=unwritten)) == "not-moored"


def test_a_sick_service_does_not_unmoor_the_vm() -> None:
    """A failing service is out of the mesh, the VM is in it; the sentence names the service."""
    sick = {"web": Verdict(Health.UNHEALTHY, "UnitDead", "web.service is failed", since=99.0)}
    snap = replace(GOOD, verdicts=sick)
    assert status.state(snap) == "moored"
    assert status.headline(snap) == "Moored, but web out of the mesh: web.service is failed"
    assert "MOORED 10s, 1 of 1 service out  mesh-a" in text(snap)


def test_sick_and_unseen_services_are_all_told() -> None:
    """One does not hide the other, and the services are counted."""
    names = ("api", "cache", "web")
    services = tuple(Service(name, {"http": 8080 + i}, ()) for i, name in enumerate(names))
    snap = replace(
        GOOD,
        discovered=replace(GOOD.discovered, services=services),
        verdicts={
            "api": Verdict(Health.UNHEALTHY, "CheckFailed", "connection refused", since=99.0),
            "cache": Verdict(Health.HEALTHY, "Passed", "connected", since=40.0),
            "web": GOOD.verdicts["web"],
        },
        entries=(*GOOD.entries, EntryState("cache", "cache.i-0abc", "registered", "True")),
        sights={"cache": Sight(), "web": Sight(listed=True, agreed=41.0)},
        selections={"cache": NOBODY, "web": LISTED},
    )
    assert status.headline(snap) == (
        "Moored, but 1 of 3 services out of the mesh: api (connection refused); "
        "cache is selected by nobody (kubectl patch it)"
    )
    shown = text(snap)
    assert "MOORED 10s, 1 of 3 services out  mesh-a" in shown
    assert shown.splitlines()[-2:] == ["cache is selected by nobody", "Fix:  kubectl patch it"]


def test_a_failing_step_on_a_moored_vm_is_a_risk() -> None:
    """Vault is away while everything still works: moored, at risk, and why."""
    snap = with_step(GOOD, "identity", "fail", "cannot reach vault")
    assert status.state(snap) == "at-risk"
    assert status.headline(snap).startswith("Moored, at risk: identity fails: cannot reach vault")


def test_the_cause_is_named_not_what_follows_from_it() -> None:
    """The first failing step in the order of dependence is the one to mend."""
    snap = replace(GOOD, credentials=False, proxy=ProxyState(), entries=())
    snap = with_step(snap, "registration", "fail", "cannot write")
    snap = with_step(snap, "identity", "fail", "403 on update kubernetes/creds/web", "vmoor admin")
    assert status.document(snap)["blocked_at"] == "identity"
    assert "Fix:  vmoor admin" in text(snap)
    assert "Next try in 18s; no restart needed." in text(snap)
    assert text(snap).splitlines()[0] == "i-0abc  NOT MOORED  blocked at identity for 1m30s"


def test_a_failing_source_is_told_with_since_when_and_what_to_do() -> None:
    """No next try is promised for what is looked at all the time."""
    file = status.Step("file", "fail", "/s:1: not JSON", "see vmoor check", 40.0)
    lines_ = text(replace(GOOD, steps=(file, *OK))).splitlines()
    assert "file         FAIL  /s:1: not JSON (for 1m)" in lines_
    assert lines_[-2:] == [
        "Fix:  see vmoor check",
        "It goes on when that is mended; no restart needed.",
    ]


def test_the_page_of_a_moored_vm() -> None:
    """What an operator sees when all is well."""
    assert text(GOOD).splitlines() == [
        "i-0abc  MOORED 10s  mesh-a  shop/web  10.0.1.17  eu-west-1/eu-west-1a",
        "identity   ok    approle shop-web; left: vault 24m",
        "proxy      ok    live 10s, redirect + DNS",
        "heartbeat  ok    1s ago, every 3s",
        "SERVICE  SOURCE  PORT       HEALTH   SINCE  MESH    LAST CHECK",
        "web      static  http:8080  healthy  1m     in 59s  200 in 4ms",
    ]


def test_why_a_service_was_out_is_told_for_a_day() -> None:
    """It is well again, and who comes later wants to know what it had."""
    lapse = Lapse(40.0, "web.service is failed (failed, signal)", ended=43.0)
    snap = replace(GOOD, verdicts={"web": replace(GOOD.verdicts["web"], lapse=lapse)})
    before = "  before: out for 3s, web.service is failed (failed, signal)"
    assert text(snap).splitlines()[-1] == before
    assert before not in text(snap, 1_000_100.0 + 86_400)
    assert status.document(snap)["services"][0]["lapse"] == {
        "began": 1_000_040.0,
        "ended": 1_000_043.0,
        "words": "web.service is failed (failed, signal)",
    }


def test_a_service_that_nobody_selects_is_told() -> None:
    """Healthy and registered, but in no client's list: moored, not reachable, and the cure."""
    snap = replace(GOOD, sights={"web": Sight()}, selections={"web": NOBODY})
    assert status.headline(snap) == "Moored, but web is selected by nobody (kubectl patch it)"
    assert status.document(snap)["reachable"] is False
    assert status.document(GOOD)["reachable"] is True
    assert "unseen" in text(snap)
    assert text(snap).splitlines()[-1] == "Fix:  kubectl patch it"


def test_a_vm_that_has_left_says_so() -> None:
    """After a leave no line claims that something is fine."""
    document = {**status.document(GOOD), "state": "left", "blocked_at": None}
    shown = list(lines(document, 1_009_999.0, stale=True))
    assert shown[0].startswith("i-0abc  LEFT  mesh-a")
    assert len(shown) == 2


def test_an_unreadable_document_is_told(tmp_path: Path) -> None:
    """Not that the agent is away: nobody knows."""
    broken = tmp_path / "status.json"
    broken.write_text("{")
    document = statusfile.read(broken)
    assert document is not None
    (line,) = lines(document, 1_000_100.0, stale=True)
    assert line.startswith(f"cannot read {broken}: ")


def test_ages_have_two_units() -> None:
    """3d4h, not 273600 seconds."""
    ages = (0, 42, 60, 312, 3600, 7380, 273_600)
    assert [age(s) for s in ages] == ["0s", "42s", "1m", "5m12s", "1h", "2h3m", "3d4h"]


ORDER = Order("alice", 1_000_000.0 - 80.0)


def test_a_drained_vm_says_who_drained_it_and_when() -> None:
    """Not moored, and not failing either: one line tells, and how to end it."""
    out = replace(
        GOOD,
        drained=Drained(ORDER),
        entries=(replace(GOOD.entries[0], health="False"),),
        sights={"web": Sight(listed=False, agreed=41.0)},
    )
    assert status.state(out) == "drained"
    assert status.headline(out) == "Drained by alice (vmoor resume)"
    assert text(out).startswith("i-0abc  DRAINED by alice 3m ago")
    assert "Back:  vmoor resume" in text(out)
    assert not status.document(out)["reachable"]


def test_a_drained_vm_that_loses_its_vault_says_both() -> None:
    """The drain hides no failure."""
    bad = with_step(replace(GOOD, drained=Drained(ORDER)), "identity", "fail", "Vault is sealed")
    assert status.headline(bad) == "Drained, at risk: identity fails: Vault is sealed"


def test_a_drained_service_is_told_and_the_vm_stays_moored() -> None:
    """Neither an entry that is missing nor a ServiceEntry that does not select it."""
    out = replace(
        GOOD,
        now=200.0,
        drained=Drained(services={"web": ORDER}),
        entries=(replace(GOOD.entries[0], health="False"),),
        sights={"web": Sight(listed=False, agreed=41.0)},
    )
    assert status.state(out) == "moored"
    said = "Moored, but web out of the mesh: drained by alice"
    assert status.headline(out) == said
    assert "web is drained by alice 3m ago.  Back:  vmoor resume --service web" in text(out)
    assert status.document(out)["reachable"]
    assert status.document(out)["services"][0]["drained"] == vars(ORDER)


def test_a_notice_of_the_cloud_is_no_order_to_be_ended_by_hand() -> None:
    """It names the cloud, and no command that would be refused."""
    snap = replace(GOOD, drained=Drained(notice=Order("AWS spot notice", 1_000_090.0)))
    assert status.state(snap) == "drained"
    assert status.headline(snap) == "Drained by AWS spot notice"
    assert "DRAINED by AWS spot notice 10s ago" in text(snap)
    assert "Back when its cloud says so." in text(snap)
    assert "vmoor resume" not in text(snap)
    assert status.document(snap)["reachable"] is False


def test_a_vm_that_has_not_heard_its_cloud_says_so() -> None:
    """Nothing of it is in the mesh yet, and no step is to blame."""
    snap = replace(GOOD, drained=Drained(hold=True), entries=())
    assert status.state(snap) == "not-moored"
    assert status.headline(snap) == "Mooring: the cloud's metadata were not read yet"
