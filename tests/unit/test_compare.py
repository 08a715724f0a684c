"""Every kind of drift that a state can tell, with its remedy and its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chrootsync.compare import in_sync, is_as_written, judge, recall
from chrootsync.model import Drift, Entry, FileType, Kind, OnConflict, Problem, Remedy, Severity, State
from chrootsync.model.memory import Baseline, Hold, Memory
from tests.unit.scenery import instance, rule

FILE = State(type=FileType.FILE, mode=0o644, uid=0, gid=0, size=10)
DIRECTORY = State(type=FileType.DIRECTORY, mode=0o755, uid=0, gid=0)
LINK = State(type=FileType.LINK, uid=0, target="/here")
DEVICE = State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 9))
SOCKET = State(type=FileType.SOCKET)
A, B = "a" * 64, "b" * 64
GONE = "the host has no such file any more"


def state(of: State, **changes: Any) -> State:
    return replace(of, **changes)


def entry(want: State | None, have: State | None, same: bool | None = None, **fields: Any) -> Entry:
    default = {"instance": instance(), "rule": rule(), "path": "/etc/x", "source": "/etc/x", "because": "always"}
    return Entry(**{**default, **fields}, want=want, have=have, same=same)


@pytest.mark.parametrize(
    ("want", "have", "same"),
    [
        (FILE, FILE, True),
        (DIRECTORY, DIRECTORY, None),
        (LINK, state(LINK, mode=0o777, gid=0), None),
        (DEVICE, DEVICE, None),
        (SOCKET, state(SOCKET, mode=0o600, uid=7), None),
        (state(FILE, uid=None, gid=None, mode=None), state(FILE, uid=7, gid=7, mode=0o600), True),
    ],
)
def test_what_is_as_wanted_is_no_drift(want: State, have: State, same: bool | None) -> None:
    assert judge(entry(want, have, same)) is None
    assert in_sync(entry(want, have, same))


@pytest.mark.parametrize(
    ("want", "have", "same", "kind", "remedy", "reason"),
    [
        (FILE, None, None, Kind.MISSING, Remedy.COPY, "this file is not in the chroot"),
        (DIRECTORY, None, None, Kind.MISSING, Remedy.CREATE, "this directory is not in the chroot"),
        (FILE, LINK, None, Kind.TYPE, Remedy.REPLACE, "a link stands where a file should"),
        (FILE, state(FILE, size=7), None, Kind.DIFFERS, Remedy.COPY, "7 bytes here, 10 on the host"),
        (FILE, FILE, False, Kind.DIFFERS, Remedy.COPY, "other contents than on the host, 10 bytes both"),
        (FILE, state(FILE, mode=0o600), True, Kind.METADATA, Remedy.REPLACE, "mode 0600, not 0644"),
        (
            FILE,
            state(FILE, mode=0o666, uid=5, gid=6),
            True,
            Kind.METADATA,
            Remedy.REPLACE,
            "mode 0666, not 0644, owner 5, not 0, group 6, not 0",
        ),
        (FILE, state(FILE, extended=("an ACL",)), True, Kind.METADATA, Remedy.REPLACE, "has an ACL"),
        (
            FILE,
            state(FILE, mode=0o600, extended=("an ACL", "file capabilities")),
            True,
            Kind.METADATA,
            Remedy.REPLACE,
            "mode 0600, not 0644, has an ACL, has file capabilities",
        ),
        (LINK, state(LINK, target="/there"), None, Kind.DIFFERS, Remedy.REPLACE, "points to /there, not to /here"),
        (DEVICE, state(DEVICE, device=(1, 3)), None, Kind.DIFFERS, Remedy.REPLACE, "is device 1:3, not 1:9"),
    ],
)
def test_drift(want: State, have: State | None, same: bool | None, kind: Kind, remedy: Remedy, reason: str) -> None:
    drift = judge(entry(want, have, same))
    assert drift is not None
    assert (drift.kind, drift.remedy, drift.reason, drift.severity) == (kind, remedy, reason, Severity.ERROR)


@pytest.mark.parametrize(
    ("have", "what"),
    [(None, "no socket is there"), (FILE, "a file stands where a socket should")],
)
def test_a_socket_that_is_not_there_is_a_warning_with_the_way_out(have: State | None, what: str) -> None:
    drift = judge(entry(SOCKET, have))
    assert drift is not None
    assert (drift.kind, drift.severity, drift.remedy) == (Kind.UNREACHABLE, Severity.WARNING, Remedy.NONE)
    assert drift.reason == f"{what}; let its service listen inside the chroot, a socket cannot be copied"


def test_a_problem_comes_before_any_comparison() -> None:
    drift = judge(entry(FILE, None, problem=Problem(kind=Kind.UNSAFE, reason="it is a trap")))
    assert drift is not None
    assert (drift.kind, drift.remedy, drift.reason) == (Kind.UNSAFE, Remedy.NONE, "it is a trap")


def test_a_rule_that_keeps_conflicts_reports_them_and_has_no_remedy() -> None:
    kept = rule(on_conflict=OnConflict.KEEP)
    drift = judge(entry(FILE, FILE, same=False, rule=kept))
    assert drift is not None
    assert (drift.kind, drift.remedy) == (Kind.DIFFERS, Remedy.NONE)
    assert drift.reason == "other contents than on the host, 10 bytes both; kept as its rule says"
    drift = judge(entry(FILE, state(FILE, mode=0o600), same=False, rule=kept))
    assert drift is not None
    beside = "mode 0600, not 0644: put that right by hand"
    assert drift.reason == f"other contents than on the host, 10 bytes both; {beside}; kept as its rule says"


def test_the_severity_is_the_entrys_then_the_rules_then_the_kinds() -> None:
    assert (one := judge(entry(FILE, None))) is not None
    assert one.severity is Severity.ERROR
    assert (one := judge(entry(FILE, None, rule=rule(severity=Severity.INFO)))) is not None
    assert one.severity is Severity.INFO
    weighed = entry(FILE, None, rule=rule(severity=Severity.INFO), severity=Severity.WARNING)
    assert (one := judge(weighed)) is not None
    assert one.severity is Severity.WARNING


# --- In the light of what is remembered ---------------------------------------------------------------------------

OLD, NEW, OWN = "0" * 64, "1" * 64, "f" * 64
REASON = "7 bytes here, 10 on the host"


def differing(on_conflict: OnConflict = OnConflict.COPY) -> Drift:
    found = judge(entry(FILE, state(FILE, size=7), rule=rule(on_conflict=on_conflict)))
    assert found is not None
    return found


def written(sha256: str) -> Baseline:
    return Baseline(state=state(FILE, sha256=sha256), written=1.0)


@pytest.mark.parametrize(
    ("memory", "kind", "reason"),
    [
        (Memory(), Kind.DIFFERS, REASON),
        (Memory(digests=frozenset({NEW})), Kind.DIFFERS, REASON),
        (Memory(digests=frozenset({OLD, NEW})), Kind.OUTDATED, f"{REASON}; the host's side has changed"),
        (Memory(baseline=written(OLD)), Kind.OUTDATED, f"{REASON}; this is what was written here last"),
        (Memory(baseline=written(NEW)), Kind.MODIFIED, f"{REASON}; this was not written by chrootsync"),
    ],
)
def test_memory_tells_which_side_changed(memory: Memory, kind: Kind, reason: str) -> None:
    found = recall(differing(), memory, want=NEW, have=OLD)
    assert (found.kind, found.remedy, found.reason) == (kind, Remedy.COPY, reason)
    assert found.severity is Severity.ERROR


def test_a_copy_whose_checksum_is_not_to_be_had_stays_as_it_was_named() -> None:
    assert recall(differing(), Memory(baseline=written(OLD)), want=NEW, have=None) == differing()


def test_what_is_kept_as_its_rule_says_is_copied_all_the_same_where_it_is_merely_outdated() -> None:
    keep = differing(OnConflict.KEEP)
    outdated = recall(keep, Memory(baseline=written(OLD)), want=NEW, have=OLD)
    assert (outdated.kind, outdated.remedy) == (Kind.OUTDATED, Remedy.COPY)
    assert "kept" not in outdated.reason
    modified = recall(keep, Memory(baseline=written(OLD)), want=NEW, have=OWN)
    assert (modified.kind, modified.remedy) == (Kind.MODIFIED, Remedy.NONE)
    assert "kept as its rule says" in modified.reason


def test_a_link_that_its_rule_once_wanted_is_outdated() -> None:
    there = state(LINK, target="/there")
    drift = judge(entry(LINK, there, source=None))
    assert drift is not None
    baseline = Baseline(state=there, written=1.0)
    assert recall(drift, Memory(baseline=baseline), want=None, have=None).kind is Kind.OUTDATED
    other = Baseline(state=LINK, written=1.0)
    assert recall(drift, Memory(baseline=other), want=None, have=None).kind is Kind.MODIFIED


def held(source: str | None = NEW, restored: State | None = None) -> Memory:
    return Memory(hold=Hold(since=1.0, until=2.0, repair=12, source=source, restored=restored))


def test_what_was_rolled_back_is_left_alone_while_both_sides_are_as_they_were_then() -> None:
    memory = held(restored=state(FILE, sha256=OLD))
    found = recall(differing(), memory, want=NEW, have=OLD, until="2026-11-30")
    assert (found.kind, found.remedy, found.severity) == (Kind.HELD, Remedy.NONE, Severity.WARNING)
    assert "repair 12 was rolled back here; held until the source changes, or until 2026-11-30" in found.reason
    for released in (
        recall(differing(), memory, want=OWN, have=OLD),
        recall(differing(), memory, want=NEW, have=OWN),
        recall(differing(), memory, want=NEW, have=OLD, force=True),
    ):
        assert released.remedy is Remedy.COPY


def test_what_a_rollback_removed_is_held_while_nothing_is_there() -> None:
    drift = judge(entry(FILE, None))
    assert drift is not None
    assert recall(drift, held(), want=NEW, have=None).kind is Kind.HELD
    assert recall(drift, held(source=OLD), want=NEW, have=None).kind is Kind.MISSING
    assert recall(differing(), held(), want=NEW, have=OWN).kind is Kind.DIFFERS


@pytest.mark.parametrize(
    ("repaired", "kind"),
    [
        ((), Kind.DIFFERS),
        ((NEW, NEW), Kind.DIFFERS),
        ((NEW, NEW, OLD, NEW), Kind.DIFFERS),
        ((OLD, NEW, NEW, NEW), Kind.DIFFERS),
        ((NEW, NEW, NEW), Kind.CONTESTED),
        ((NEW, NEW, NEW, NEW, OLD), Kind.CONTESTED),
    ],
)
def test_what_was_repaired_three_times_without_a_change_of_its_source_is_contested(
    repaired: tuple[str, ...], kind: Kind
) -> None:
    found = recall(differing(), Memory(repaired=repaired), want=NEW, have=OWN)
    assert found.kind is kind
    assert (found.remedy is Remedy.NONE) is (kind is Kind.CONTESTED)
    reason = "repaired 3 times while its source stayed the same: something else keeps changing it"
    contested = f"{reason}; find out what, then check --fix --force"
    assert kind is not Kind.CONTESTED or found.reason == contested.replace("3 times", f"{repaired.count(NEW)} times")
    assert recall(differing(), Memory(repaired=repaired), want=NEW, have=OWN, force=True).remedy is Remedy.COPY


def test_memory_says_nothing_of_what_no_repair_would_touch() -> None:
    problem = judge(entry(None, None, problem=Problem(kind=Kind.UNSAFE, reason="others can write")))
    assert problem is not None
    assert recall(problem, held(), want=NEW, have=None) is problem


# --- What should not be there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "on_conflict", "remedy", "reason"),
    [
        (FILE, OnConflict.COPY, Remedy.REMOVE, GONE),
        (LINK, OnConflict.COPY, Remedy.REMOVE, GONE),
        (FILE, OnConflict.KEEP, Remedy.NONE, f"{GONE}; kept as its rule says"),
        (SOCKET, OnConflict.COPY, Remedy.NONE, f"{GONE}; a socket is never removed: do it by hand"),
        (DEVICE, OnConflict.KEEP, Remedy.NONE, f"{GONE}; a character-device is never removed: do it by hand"),
    ],
)
def test_what_should_not_be_there(have: State, on_conflict: OnConflict, remedy: Remedy, reason: str) -> None:
    drift = judge(entry(None, have, rule=rule(on_conflict=on_conflict), surplus=True))
    assert drift is not None
    assert (drift.kind, drift.remedy, drift.reason, drift.severity) == (Kind.ORPHAN, remedy, reason, Severity.WARNING)


def test_what_should_not_be_there_and_is_not() -> None:
    assert judge(entry(None, None, surplus=True)) is None


def test_the_severity_of_its_rule_counts() -> None:
    drift = judge(entry(None, FILE, rule=rule(severity=Severity.ERROR), surplus=True))
    assert drift is not None
    assert drift.severity is Severity.ERROR


@pytest.mark.parametrize(
    ("there", "digest", "same"),
    [
        (FILE, A, True),
        (state(FILE, identity=(1, 2, 3, 4, 5)), A, True),
        (FILE, B, False),
        (state(FILE, mode=0o600), A, False),
        (state(FILE, uid=7), A, False),
        (state(FILE, extended=("an ACL",)), A, False),
        (LINK, None, False),
    ],
)
def test_exactly_what_was_written(there: State, digest: str | None, same: bool) -> None:
    assert is_as_written(state(FILE, sha256=A), there, digest) is same


def test_a_link_is_exactly_what_was_written_by_its_text() -> None:
    there = state(LINK, mode=0o777, gid=0)
    assert is_as_written(LINK, there, None)
    assert not is_as_written(LINK, state(there, target="/there"), None)


def test_what_was_put_back_and_is_needed_no_more_is_held_whatever_its_source_is() -> None:
    hold = Hold(since=0, until=9, repair=4, source=A, restored=state(FILE, sha256=B))
    drift = judge(entry(None, FILE, surplus=True))
    assert drift is not None
    held = recall(drift, Memory(hold=hold), want=None, have=B, until="2026-01-02")
    assert (held.kind, held.remedy) == (Kind.HELD, Remedy.NONE)
    assert held.reason == "repair 4 was rolled back here; held until 2026-01-02; check --fix --force releases it"
    assert recall(drift, Memory(hold=hold), want=None, have=A) is drift
    assert recall(drift, Memory(hold=hold), want=None, have=B, force=True) is drift
