"""What is remembered comes back, of the right root and place, and nothing is pending without a marker."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.model import FileType, Kind, Outcome, Record, Reload, State, Status
from chrootsync.model.memory import Baseline, Change, Hold, Memory, Placed, Repair, Spot, Step
from chrootsync.state import Store, pending, places
from chrootsync.state.database import Database, open_database
from tests.unit.machine import descriptors

NOW = 1_700_000_000.0
DAY = 86400.0
A, B, C = ("a" * 64, "b" * 64, "c" * 64)
FILE = State(type=FileType.FILE, mode=0o644, uid=0, gid=0, size=3, sha256=A)
REPAIRED = Outcome(status=Status.REPAIRED)
CHROOT, PATH, SOURCE = "/var/spool/postfix", "/etc/resolv.conf", "/etc/resolv.conf"
SPOT = Spot(CHROOT, PATH, SOURCE)
PENDING = {"postfix": Record(last=NOW, pending=True, since=NOW - 1, restart=True, failures=3)}


@contextmanager
def opened(
    directory: Path | None, *, root: str = "/", write: bool = True, now: float = NOW, quota: int = 1 << 20
) -> Iterator[Database]:
    """A database for a while; who has it locked is not waited for."""
    place = None if directory is None else os.fspath(directory)
    with closing(open_database(place, root, write=write, now=now, quota=quota, patience=0.2)) as database:
        yield database


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where state is kept: not made yet."""
    return tmp_path / "state"


def change(
    path: str = PATH, *, chroot: str = CHROOT, after: State | None = FILE, outcome: Outcome = REPAIRED
) -> Change:
    return Change(
        instance="postfix",
        chroot=chroot,
        path=path,
        source=path,
        rule="postfix.resolver",
        kind=Kind.OUTDATED,
        package="libc6",
        before=None,
        after=after,
        outcome=outcome,
    )


def step(one: Change, temporary: str = ".chrootsync-1") -> Step:
    return Step(change=one, temporary=temporary)


def repaired(database: Database, *changes: Change, began: float = NOW, undoes: int | None = None) -> int | None:
    """One repair from its plan to its end; its number."""
    journal = database.begin(began=began, trigger="manual", version="1.0", undoes=undoes)
    steps = [step(one, f".chrootsync-{number}") for number, one in enumerate(changes)]
    journal.plan(steps)
    journal.intend(steps)
    journal.settle(changes)
    return journal.id


def only(database: Database, spot: Spot = SPOT) -> Memory:
    (memory,) = database.recall([spot])
    return memory


# --- The file -----------------------------------------------------------------------------------------------------


def test_it_is_private_whatever_the_umask(directory: Path) -> None:
    umask = os.umask(0)
    try:
        with opened(directory) as database:
            repaired(database, change())
            names = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    finally:
        os.umask(umask)
    assert names == dict.fromkeys(["state.db", "state.db-wal", "state.db-shm", "pending"], 0o600)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_beside_it(directory: Path) -> None:
    before = descriptors()
    with opened(directory) as database:
        repaired(database, change())
        assert database.notes == []
    assert sorted(os.listdir(directory)) == ["cache-places.json", "state.db"]
    assert descriptors() == before


def test_a_relative_directory_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(open_database("a b%3f#c", "/", write=True, now=NOW)) as database:
        monkeypatch.chdir("/")
        repaired(database, change())
    assert sorted(os.listdir(tmp_path / "a b%3f#c")) == ["cache-places.json", "state.db"]


def test_an_odd_directory(tmp_path: Path) -> None:
    directory = tmp_path / "od\udcffd\n?mode=memory&x"
    with opened(directory) as database:
        repaired(database, change())
    with opened(directory, write=False) as database:
        assert only(database).baseline is not None
    assert os.listdir(tmp_path) == [directory.name]


def test_asking_makes_nothing(directory: Path) -> None:
    with opened(directory, write=False) as database:
        assert database.fresh
        assert database.notes == []
        assert only(database) == Memory()
        assert database.recall([]) == []
        assert database.reloads() == {}
        assert database.sources() == {}
        assert database.repairs(10) == []
        assert database.unfinished() == []
        assert database.placed(CHROOT) == []
        assert database.places() == {}
        assert database.repair(1) is None
        assert database.kept(A) is None
    assert not directory.exists()


def test_without_a_directory_nothing_is_remembered_and_nothing_said() -> None:
    with opened(None) as database:
        assert repaired(database, change()) is None
        database.remember(PENDING)
        database.record_sources({SOURCE: ((1,), A)})
        database.hold(CHROOT, PATH, Hold(since=NOW, until=NOW + 1, repair=1, source=A, restored=None))
        database.prune(days=1, repairs=1, now=NOW)
        assert only(database) == Memory()
        assert database.reloads() == {}
        assert database.fresh
        assert database.notes == []
    assert not pending(None)


def test_it_is_fresh_until_something_of_this_root_is_remembered(directory: Path) -> None:
    with opened(directory) as database:
        assert database.fresh
        repaired(database, change())
        assert database.fresh, "what this very run did is nothing that it found"
    for write in (True, False):
        with opened(directory, write=write) as database:
            assert not database.fresh
    with opened(directory, root="/srv/image", write=False) as database:
        assert database.fresh


def test_after_the_end_everything_is_harmless(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="manual", version="1.0")
    journal.plan([step(change())])
    journal.settle([change()])
    database.close()
    assert only(database) == Memory()
    assert database.notes == []


# --- Places -------------------------------------------------------------------------------------------------------


def test_what_was_written_is_the_baseline(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change())
    with opened(directory, write=False) as database:
        assert only(database) == Memory(
            baseline=Baseline(state=FILE, written=NOW), digests=frozenset({A}), repaired=(A,)
        )


def test_a_later_repair_replaces_the_baseline(directory: Path) -> None:
    newer = replace(FILE, sha256=B)
    with opened(directory) as database:
        repaired(database, change(), began=NOW - 60)
        repaired(database, change(after=newer))
        assert only(database) == Memory(
            baseline=Baseline(state=newer, written=NOW), digests=frozenset({A, B}), repaired=(B, A)
        )


def test_what_was_removed_has_no_baseline(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change())
        repaired(database, change(after=None))
        assert only(database) == Memory(digests=frozenset({A}), repaired=(None, A))


@pytest.mark.parametrize("status", [Status.FAILED, Status.SKIPPED, Status.WAITING])
def test_what_was_not_done_is_no_baseline(directory: Path, status: Status) -> None:
    with opened(directory) as database:
        repaired(database, change(), change("/etc/hosts", outcome=Outcome(status=status, reason="because")))
        assert only(database, Spot(CHROOT, "/etc/hosts", "/etc/hosts")) == Memory()
        assert only(database).baseline is not None


def test_what_is_perhaps_not_on_the_disk_is_the_baseline(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change(outcome=Outcome(status=Status.UNKNOWN, reason="fsync")))
        assert only(database).baseline == Baseline(state=FILE, written=NOW)
        assert only(database).repaired == (A,)


STATES = [
    State(type=FileType.FILE, mode=0o4755, uid=2**32 - 2, gid=7, size=2**63, sha256=A, extended=("an ACL", "x")),
    State(type=FileType.LINK, target="../\n\udcff/ü"),
    State(type=FileType.CHARACTER_DEVICE, mode=0o666, uid=0, gid=0, device=(1, 2**40)),
    State(type=FileType.DIRECTORY, mode=0o755),
    State(type=FileType.FIFO),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.type.value)
def test_every_state_comes_back(directory: Path, state: State) -> None:
    told = replace(change(after=state), before=state)
    with opened(directory) as database:
        number = repaired(database, told)
        assert only(database).baseline == Baseline(state=state, written=NOW)
        assert only(database).repaired == (state.sha256,)
        assert number is not None
        recorded = database.repair(number)
        assert recorded is not None
        assert recorded.changes == (told,)


def test_of_an_identity_only_the_mtime_is_kept_and_only_in_the_history(directory: Path) -> None:
    seen = replace(FILE, identity=(2**64 - 1, 2**63, 3, 1_600_000_000_123_456_789, 7))
    with opened(directory) as database:
        number = repaired(database, replace(change(after=seen), before=seen))
        assert only(database).baseline == Baseline(state=FILE, written=NOW)
        database.hold(CHROOT, PATH, Hold(since=NOW, until=NOW + 1, repair=1, source=A, restored=seen))
        held = only(database).hold
        assert held is not None
        assert held.restored == FILE
        recorded = database.repair(number or 0)
    assert recorded is not None
    before = recorded.changes[0].before
    assert before == replace(FILE, identity=(0, 0, 3, 1_600_000_000_123_456_789, 0))


PATHS = ["/etc/\udcff\udc80", "/etc/a\nb", "/etc/ü→", "/\x01\x7f", "/" + "x" * 4000, "/etc/%s?'\";--", "/\ud800"]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
def test_odd_names(directory: Path, path: str) -> None:
    told = replace(change(path, chroot=f"/srv{path}"), instance=path, rule=path, package=path)
    reason = replace(told, path=f"{path}/x", outcome=Outcome(status=Status.FAILED, reason=path))
    with opened(directory, root=f"/root{path}") as database:
        journal = database.begin(began=NOW, trigger=path, version=path)
        journal.plan([step(told, f".{path[1:]}")])
        (unfinished,) = database.unfinished()
        journal.settle([told, reason])
        journal.reloaded(path, Reload(needed=True, command=(path,), output=path))
        database.record_sources({path: ((1, 2), B)})
        database.remember({path: Record(last=1.0)})
        assert database.reloads() == {path: Record(last=1.0)}
        assert database.notes == []
        memory = only(database, Spot(f"/srv{path}", path, path))
        (repair,) = database.repairs(5)
    assert memory.baseline == Baseline(state=FILE, written=NOW)
    assert (repair.trigger, repair.version) == (path, path)
    assert repair.reloads == {path: Reload(needed=True, command=(path,), output=path)}
    assert repair.changes[0].rule == repair.changes[0].instance == repair.changes[1].outcome.reason == path
    if path != "/\ud800":  # which no file can be called
        assert unfinished.steps == (step(told, f".{path[1:]}"),)
        assert memory.digests == {A, B}
        assert repair.changes == (told, reason)


def test_thousands_of_places_at_once(directory: Path) -> None:
    changes = [change(f"/etc/{number}", after=replace(FILE, size=number)) for number in range(3000)]
    with opened(directory) as database:
        repaired(database, *changes)
        spots = [Spot(CHROOT, one.path, one.source) for one in reversed(changes)]
        spots.insert(7, Spot("/elsewhere", PATH, "/etc/7"))
        memories = database.recall(spots)
    elsewhere = memories.pop(7)
    assert elsewhere == Memory(digests=frozenset({A}))
    assert [memory.baseline.state.size for memory in memories if memory.baseline is not None] == [*range(2999, -1, -1)]


def test_the_same_place_asked_for_twice(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change())
        first, second, nothing = database.recall([SPOT, SPOT, SPOT._replace(source=None)])
    assert first == second
    assert nothing == replace(first, digests=frozenset())


LINK = State(type=FileType.LINK, target="../\n\udcff")


@pytest.mark.parametrize("state", [FILE, LINK], ids=["file", "link"])
def test_what_was_put_where_nothing_was_is_known_with_who_put_it_there(directory: Path, state: State) -> None:
    path = "/etc/\udcff\n"
    with opened(directory) as database:
        repaired(database, change(path, after=state), change("/etc", after=State(type=FileType.DIRECTORY)))
        expected = [Placed(path=path, state=state, instance="postfix", rule="postfix.resolver", since=NOW)]
        assert database.placed(CHROOT) == expected
        assert database.placed("/elsewhere") == []
        assert database.places() == {CHROOT: [path]}
    hint = places.read(Store(str(directory)), "/")
    assert hint == {CHROOT: [path]}
    assert places.read(Store(str(directory)), "/srv/image") == {}


def test_who_put_it_there_is_forgotten_with_it(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change(), change("/etc/hosts"))
        repaired(database, replace(change(after=None), before=FILE))
        database.disown(CHROOT, ["/etc/hosts", "/nowhere"])
        database.disown(CHROOT, [])
        assert database.placed(CHROOT) == []
        assert only(database, Spot(CHROOT, "/etc/hosts", None)).baseline is not None
    assert places.read(Store(str(directory)), "/") == {}


@pytest.mark.parametrize(
    ("before", "known"),
    [
        (FILE, True),
        (replace(FILE, mode=0o600), True),
        (replace(FILE, sha256=B), False),
        (replace(FILE, sha256=None), False),
    ],
    ids=["what was put", "its mode changed", "other contents", "contents that nobody knows"],
)
def test_a_refresh_keeps_who_put_it_there_while_that_is_what_it_replaces(
    directory: Path, before: State, known: bool
) -> None:
    newer = replace(FILE, sha256=C)
    with opened(directory) as database:
        repaired(database, change(), began=NOW - DAY)
        repaired(database, replace(change(after=newer), before=before))
        assert [(one.state, one.since) for one in database.placed(CHROOT)] == [(newer, NOW - DAY)] * known


def test_a_rollback_restores_who_put_it_there_with_the_contents(directory: Path) -> None:
    gone = replace(change(after=None), before=FILE)
    with opened(directory) as database:
        repaired(database, change(), began=NOW - DAY)
        ours = repaired(database, gone)
        repaired(database, change(), undoes=ours)
        assert [one.since for one in database.placed(CHROOT)] == [NOW - DAY]
        repaired(database, replace(gone, before=replace(FILE, sha256=B)))
        theirs = repaired(database, replace(gone, before=replace(FILE, sha256=C)))
        repaired(database, change(after=replace(FILE, sha256=C)), undoes=theirs)
        assert database.placed(CHROOT) == []


def test_what_a_run_that_was_cut_short_put_is_known_too(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="manual", version="1.0")
        journal.plan([step(change())])
    with opened(directory) as database:
        (unfinished,) = database.unfinished()
        database.recovered(unfinished, [change()])
        assert [one.path for one in database.placed(CHROOT)] == [PATH]


def test_who_reads_disowns_nothing(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change())
    with opened(directory, write=False) as database:
        database.disown(CHROOT, [PATH])
        assert database.notes == []
        assert [one.path for one in database.placed(CHROOT)] == [PATH]


@pytest.mark.parametrize("garbage", ["", "{}", '["a", "b"]', '["a", "b", "c"]', '[1, "b", 2.0]', '["a", "b", NaN]'])
def test_garbage_for_who_put_it_there_is_no_reason_to_prune(directory: Path, garbage: str) -> None:
    with opened(directory) as database:
        repaired(database, change())
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        connection.execute("UPDATE baselines SET placed = ?", (garbage,))
        connection.commit()
    with opened(directory, write=False) as database:
        assert database.placed(CHROOT) == []
        assert "makes no sense" in database.notes[0]


def test_only_the_repairs_of_a_week_count_up_to_the_last_rollback(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change(after=replace(FILE, sha256="0" * 64)), began=NOW - 7 * DAY - 1)
        repaired(database, change(), began=NOW - 7 * DAY + 1)
        repaired(database, change(after=replace(FILE, sha256=B)), began=NOW - 60)
        assert only(database).repaired == (B, A)
        number = repaired(database, change(after=replace(FILE, sha256=C)), began=NOW - 50, undoes=1)
        assert only(database).repaired == ()
        repaired(database, change(after=replace(FILE, sha256=B)), began=NOW - 40)
        assert only(database).repaired == (B,)
        failed = change(outcome=Outcome(status=Status.FAILED, reason="no"))
        repaired(database, failed, began=NOW - 30, undoes=number)
        assert only(database).repaired == (B,), "a rollback that failed has brought nothing back"


def test_what_a_rollback_brings_back_need_not_have_been_the_sources(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change(after=replace(FILE, sha256=C)), undoes=1)
        assert only(database) == Memory(baseline=Baseline(state=replace(FILE, sha256=C), written=NOW))


def test_roots_are_kept_apart(directory: Path) -> None:
    with opened(directory) as host, opened(directory, root="/srv/image") as image:
        one, other = repaired(host, change()), repaired(image, change(after=replace(FILE, sha256=B)))
        host.record_sources({SOURCE: ((1,), C)})
        image.remember(PENDING)
        assert (one, other) == (1, 2)
        assert only(host).digests == {A, C}
        assert only(image).digests == {B}
        assert host.reloads() == {}
        assert image.sources() == {}
        assert host.repair(2) is None
        assert [repair.id for repair in image.repairs(10)] == [2]
        image.begin(began=NOW, trigger="t", version="1").plan([step(change())])
        assert host.unfinished() == []
        assert len(image.unfinished()) == 1
        image.hold(CHROOT, PATH, Hold(since=NOW, until=NOW + 1, repair=2, source=None, restored=None))
        assert only(host).hold is None


# --- Holds --------------------------------------------------------------------------------------------------------


def test_a_hold_ends_by_itself(directory: Path) -> None:
    hold = Hold(since=NOW, until=NOW + DAY, repair=7, source=A, restored=FILE)
    with opened(directory) as database:
        database.hold(CHROOT, PATH, hold)
        assert only(database) == Memory(hold=hold)
        assert only(database, Spot(CHROOT, "/etc/hosts", None)) == Memory()
    with opened(directory, now=NOW + DAY) as database:
        assert only(database) == Memory()
        database.prune(days=30, repairs=200, now=NOW + DAY)
    with opened(directory) as database:
        assert only(database) == Memory(), "pruned"


def test_a_hold_is_released_by_a_repair_and_not_by_a_failure(directory: Path) -> None:
    hold = Hold(since=NOW, until=NOW + DAY, repair=7, source=None, restored=None)
    with opened(directory) as database:
        database.hold(CHROOT, PATH, hold)
        repaired(database, change(outcome=Outcome(status=Status.FAILED, reason="no")))
        assert only(database).hold == hold
        repaired(database, change())
        assert only(database).hold is None


def test_a_later_hold_replaces_an_earlier_one(directory: Path) -> None:
    with opened(directory) as database:
        for number in (1, 2):
            database.hold(CHROOT, PATH, Hold(since=NOW, until=NOW + DAY, repair=number, source=A, restored=None))
        held = only(database).hold
        assert held is not None
        assert held.repair == 2


# --- Sources ------------------------------------------------------------------------------------------------------


def test_a_source_has_been_many_things(directory: Path) -> None:
    with opened(directory) as database:
        database.record_sources({SOURCE: ((2**64 - 1, 2, 3, 4, 5), A), "/etc/hosts": ((9,), A)})
        database.record_sources({SOURCE: ((6, 7), B)})
        database.record_sources({})
    with opened(directory, write=False) as database:
        assert database.sources() == {SOURCE: (6, 7), "/etc/hosts": (9,)}
        assert only(database).digests == {A, B}


def test_the_newest_thousand_checksums_of_a_source_are_remembered(directory: Path) -> None:
    with opened(directory) as database:
        for number in range(1002):
            database.record_sources({SOURCE: ((number,), f"{number:064x}")})
            if number == 999:
                database.record_sources({SOURCE: ((0,), f"{0:064x}")})
        digests = only(database).digests
    assert digests == {f"{number:064x}" for number in (0, *range(3, 1002))}, "the first was seen again later"


# --- Reloads ------------------------------------------------------------------------------------------------------


def test_reloads_are_remembered_as_a_whole(directory: Path) -> None:
    with opened(directory) as database:
        database.remember({**PENDING, "postfix-out": Record(last=5.0), "forgotten": Record()})
    with opened(directory) as database:
        assert database.reloads() == {**PENDING, "postfix-out": Record(last=5.0)}
        database.remember({"postfix-out": Record(last=6.0)})
        assert database.reloads() == {"postfix-out": Record(last=6.0)}
        database.remember({})
    with opened(directory, write=False) as database:
        assert database.reloads() == {}


NONSENSE = ["", "{", "7", "null", "[]", '{"unknown": 1}', '{"last": "x"}', '{"failures": NaN}', "[" * 100_000]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_reloads_that_make_no_sense_are_forgotten(directory: Path, text: str) -> None:
    with opened(directory) as database:
        database.remember({"broken": Record(last=5.0), **PENDING})
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        connection.execute("UPDATE due SET record = ? WHERE instance = 'broken'", (text,))
        connection.commit()
    with opened(directory) as database:
        assert database.reloads() == PENDING
        assert database.notes == []
    assert pending(os.fspath(directory))


def test_what_earlier_versions_remembered_of_reloads_is_taken_over(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    records = {"postfix": {"last": NOW, "pending": True, "since": NOW - 1, "restart": True, "failures": 3}, "odd": 7}
    (directory / "reloads.json").write_text(json.dumps(records))
    with opened(directory, write=False) as database:
        assert database.reloads() == {}
    assert os.listdir(directory) == ["reloads.json"]
    with opened(directory) as database:
        assert database.reloads() == PENDING
        assert database.fresh
    assert sorted(os.listdir(directory)) == ["pending", "state.db"]


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[" * 100_000, b"\xff"])
def test_nonsense_of_earlier_versions_goes(directory: Path, text: bytes) -> None:
    directory.mkdir(mode=0o700)
    (directory / "reloads.json").write_bytes(text)
    with opened(directory) as database:
        assert database.reloads() == {}
        assert database.notes == []
    assert os.listdir(directory) == ["state.db"]


# --- Plans --------------------------------------------------------------------------------------------------------


def test_a_plan_is_remembered_until_it_is_settled(directory: Path) -> None:
    planned = [step(change(), ".one"), step(change("/etc/hosts"), ".two")]
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        assert database.repairs(5) == []
        journal.plan(planned)
        assert journal.id == 1
        with opened(directory, write=False) as other:
            (unfinished,) = other.unfinished()
        assert (unfinished.repair, unfinished.began) == (1, NOW)
        assert (unfinished.instance, unfinished.chroot) == ("postfix", CHROOT)
        assert unfinished.steps == tuple(planned)
        intended = [
            replace(planned[1], inode=(2**64 - 1, 2**63), old=(1, 2), change=replace(change("/etc/hosts"), before=FILE))
        ]
        journal.intend(intended)
        (unfinished,) = database.unfinished()
        assert unfinished.steps == (planned[0], *intended)
        journal.settle([one.change for one in planned])
        assert database.unfinished() == []


def test_each_chroot_has_a_plan_of_its_own(directory: Path) -> None:
    elsewhere = change(chroot="/srv/other")
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan([step(change())])
        journal.plan([step(elsewhere)])
        journal.settle([change()])
        assert [unfinished.chroot for unfinished in database.unfinished()] == ["/srv/other"]
        journal.settle([elsewhere])
        assert database.unfinished() == []
        assert [repair.changes for repair in database.repairs(5)] == [(change(), elsewhere)]


def test_settling_nothing_ends_the_newest_plan_only(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan([step(change(), ".left")])
        journal.plan([step(change(chroot="/srv/other"))])
        journal.settle([])
        assert [unfinished.chroot for unfinished in database.unfinished()] == [CHROOT]


def test_a_plan_that_is_left_open_outlives_the_next_one_for_the_chroot(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan([step(change(), ".left")])
        journal.plan([step(change(), ".again")])
        journal.settle([change()])
        (unfinished,) = database.unfinished()
        assert unfinished.steps == (step(change(), ".left"),)


def test_steps_without_a_temporary_are_told_apart_by_their_path(directory: Path) -> None:
    steps = [step(change("/etc/a"), ""), step(change("/etc/b"), "")]
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan(steps)
        journal.intend([replace(steps[0], inode=(1, 2))])
        (unfinished,) = database.unfinished()
        assert unfinished.steps == (replace(steps[0], inode=(1, 2)), steps[1])
        database.recovered(unfinished, [])
        assert database.unfinished() == []


def test_what_is_intended_without_a_plan_is_planned(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan([])
        journal.intend([])
        assert journal.id is None
        journal.intend([step(change())])
        assert len(database.unfinished()) == 1


def test_nothing_done_leaves_nothing(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.settle([])
        journal.reloaded("postfix", Reload(needed=True, done=True))
        journal.plan([step(change())])
        journal.settle([])
        assert journal.id is None
        assert database.repairs(5) == []
        assert repaired(database, change()) == 1


def test_what_was_found_to_have_been_done_belongs_to_the_repair_that_was_cut_short(directory: Path) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW - 60, trigger="timer", version="1.0")
        journal.plan([step(change(), ".a"), step(change("/etc/hosts"), ".b")])
    with opened(directory) as database:
        (unfinished,) = database.unfinished()
        database.recovered(unfinished, [change()])
        assert database.unfinished() == []
        assert only(database).baseline == Baseline(state=FILE, written=NOW - 60)
        assert only(database).digests == {A}
        assert database.repairs(5) == [
            Repair(id=1, began=NOW - 60, trigger="timer", version="1.0", undoes=None, changes=(change(),))
        ]
        database.recovered(unfinished, [])
        assert database.notes == []


def test_a_repair_that_was_cut_short_before_it_did_anything_is_forgotten(directory: Path) -> None:
    with opened(directory) as database:
        database.begin(began=NOW, trigger="timer", version="1.0").plan([step(change())])
    with opened(directory) as database:
        (unfinished,) = database.unfinished()
        database.recovered(unfinished, [])
        assert database.repairs(5) == []
        database.recovered(unfinished, [change()])
        assert database.repairs(5) == [], "there is nothing that it could belong to"
    assert not pending(os.fspath(directory))


def test_unfinished_plans_come_oldest_first(directory: Path) -> None:
    with opened(directory) as database:
        for chroot in ("/z", "/a", "/m"):
            database.begin(began=NOW, trigger="t", version="1").plan([step(change(chroot=chroot))])
        assert [unfinished.chroot for unfinished in database.unfinished()] == ["/z", "/a", "/m"]


# --- History ------------------------------------------------------------------------------------------------------


def test_history_tells_everything_newest_first(directory: Path) -> None:
    first = replace(change(), before=FILE, kept=True)
    second = replace(
        change("/etc/hosts", outcome=Outcome(status=Status.UNKNOWN, reason="fsync")), source=None, package=None
    )
    reload = Reload(needed=True, done=False, pending=True, command=("/usr/sbin/postfix", "x"), error="e", output="o")
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="timer", version="1.0")
        journal.plan([step(first), step(second, ".2")])
        journal.settle([first, second])
        journal.reloaded("postfix", Reload(needed=True))
        journal.reloaded("postfix", reload)
        repaired(database, change(), began=NOW + 1, undoes=1)
    with opened(directory, write=False) as database:
        newest, oldest = database.repairs(10)
        assert oldest == Repair(
            id=1,
            began=NOW,
            trigger="timer",
            version="1.0",
            undoes=None,
            changes=(first, second),
            reloads={"postfix": reload},
        )
        assert (newest.id, newest.undoes) == (2, 1)
        assert database.repairs(1) == [newest]
        assert database.repairs(0) == database.repairs(-1) == []
        assert database.repairs(2**70) == [newest, oldest]
        assert database.repair(1) == oldest
        for number in (0, -1, 3, 2**63, 2**70):
            assert database.repair(number) is None
        assert database.notes == []


def test_a_timer_does_not_fill_the_history_with_one_failure(directory: Path) -> None:
    failed = change(outcome=Outcome(status=Status.FAILED, reason="the disk is full"))
    skipped = change("/etc/hosts", outcome=Outcome(status=Status.SKIPPED, reason="left as it was"))
    other = change(outcome=Outcome(status=Status.FAILED, reason="it is immutable"))
    with opened(directory) as database:
        assert repaired(database, failed, skipped) == 1
        for _ in range(3):
            assert repaired(database, failed, skipped) is None
        assert repaired(database, other, skipped) == 2
        assert repaired(database, failed, skipped) == 3
        assert repaired(database, change(), skipped) == 4
        assert repaired(database, failed, skipped) == 5
        assert [len(repair.changes) for repair in database.repairs(10)] == [1, 1, 1, 1, 2]


def test_the_same_repair_again_is_remembered_again(directory: Path) -> None:
    with opened(directory) as database:
        assert [repaired(database, change()) for _ in range(3)] == [1, 2, 3]


def test_contents_without_a_checksum_are_not_kept(directory: Path) -> None:
    with opened(directory) as database:
        number = repaired(database, replace(change(), before=replace(FILE, sha256=None), kept=True))
        assert number is not None
        recorded = database.repair(number)
        assert recorded is not None
        assert not recorded.changes[0].kept


# --- Pruning ------------------------------------------------------------------------------------------------------


def test_old_repairs_go_and_their_numbers_are_never_used_again(directory: Path) -> None:
    with opened(directory) as database:
        for days in (40, 31, 29, 1):
            repaired(database, change(f"/etc/{days}"), began=NOW - days * DAY)
        database.prune(days=30, repairs=200, now=NOW)
        assert [repair.id for repair in database.repairs(10)] == [4, 3]
        assert only(database, Spot(CHROOT, "/etc/40", "/etc/40")).baseline is not None
        assert only(database, Spot(CHROOT, "/etc/40", "/etc/40")).digests == {A}
        database.prune(days=30, repairs=1, now=NOW)
        assert [repair.id for repair in database.repairs(10)] == [4]
        database.prune(days=30, repairs=0, now=NOW)
        assert database.repairs(10) == []
        assert repaired(database, change()) == 5
        with closing(sqlite3.connect(directory / "state.db")) as connection:
            assert connection.execute("SELECT count(*) FROM changes").fetchone() == (1,)


def test_too_many_repairs_of_another_root_are_its_own_business(directory: Path) -> None:
    with opened(directory) as host, opened(directory, root="/srv/image") as image:
        for _ in range(3):
            repaired(image, change())
        repaired(image, change(), began=NOW - 31 * DAY)
        repaired(host, change())
        host.prune(days=30, repairs=1, now=NOW)
        assert len(host.repairs(10)) == 1
        assert len(image.repairs(10)) == 3


def test_what_is_pending_is_never_pruned(directory: Path) -> None:
    with opened(directory) as database:
        database.begin(began=0.0, trigger="t", version="1").plan([step(change())])
        database.remember(PENDING)
        database.prune(days=0, repairs=0, now=NOW)
        assert len(database.unfinished()) == 1
        assert database.reloads() == PENDING


@pytest.mark.parametrize("days", [0.0, float("inf"), 1e300])
def test_any_number_of_days(directory: Path, days: float) -> None:
    with opened(directory) as database:
        repaired(database, change(), began=NOW - 1)
        database.prune(days=days, repairs=2**70, now=NOW)
        assert len(database.repairs(5)) == (days > 0)
        assert database.notes == []


# --- The marker ---------------------------------------------------------------------------------------------------


def test_the_marker_is_there_before_a_plan_is(directory: Path) -> None:
    place = os.fspath(directory)
    with opened(directory) as database:
        assert not pending(place)
        journal = database.begin(began=NOW, trigger="t", version="1")
        journal.plan([step(change())])
        assert pending(place)
    assert pending(place)
    with opened(directory, write=False):
        pass
    assert pending(place), "who only reads leaves it alone"
    with opened(directory) as database:
        database.recovered(database.unfinished()[0], [change()])
        assert pending(place)
    assert not pending(place)


def test_the_marker_stays_while_a_reload_is_due(directory: Path) -> None:
    place = os.fspath(directory)
    with opened(directory) as database:
        database.remember({"postfix": Record(last=5.0)})
        assert not pending(place)
        database.remember(PENDING)
        assert pending(place)
        repaired(database, change())
    with opened(directory, root="/srv/image"):
        pass
    assert pending(place), "it is due for another root"
    with opened(directory) as database:
        database.remember({})
    assert not pending(place)


def test_a_marker_that_was_lost_comes_back(directory: Path) -> None:
    with opened(directory) as database:
        database.remember(PENDING)
        (directory / "pending").unlink()
    assert pending(os.fspath(directory))


def test_a_marker_is_believed_in_a_private_directory_only(directory: Path) -> None:
    with opened(directory) as database:
        database.remember(PENDING)
    directory.chmod(0o777)
    assert not pending(os.fspath(directory))
    directory.chmod(0o700)
    assert pending(os.fspath(directory))
    assert not pending(os.fspath(directory / "nowhere"))


# --- Properties ---------------------------------------------------------------------------------------------------

OUTCOMES = st.builds(Outcome, status=st.sampled_from(Status), reason=st.sampled_from(["", "no", "\udcff\n"]))
AFTER = st.sampled_from([None, FILE, replace(FILE, sha256=B), State(type=FileType.LINK, target="x")])
ACTS = st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), AFTER, OUTCOMES), max_size=12)


@given(runs=st.lists(ACTS, max_size=4))
def test_what_was_done_last_is_what_is_remembered(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[tuple[str, State | None, Outcome]]]
) -> None:
    baselines: dict[str, State | None] = {}
    put: dict[str, list[str | None]] = {}
    done = {Status.REPAIRED, Status.UNKNOWN}
    with opened(tmp_path_factory.mktemp("property") / "state") as database:
        for run in runs:
            repaired(database, *(change(path, after=after, outcome=outcome) for path, after, outcome in run))
            for path, after, outcome in run:
                if outcome.status in done:
                    baselines[path] = after
                    put.setdefault(path, []).insert(0, None if after is None else after.sha256)
        for path in ("/a", "/b", "/c"):
            memory = only(database, Spot(CHROOT, path, path))
            assert (None if memory.baseline is None else memory.baseline.state) == baselines.get(path)
            assert list(memory.repaired) == put.get(path, [])
            assert memory.digests == {digest for digest in put.get(path, []) if digest is not None}
        assert database.unfinished() == []
        assert all(repair.changes for repair in database.repairs(100))
        assert database.notes == []
