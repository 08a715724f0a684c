"""A database of an earlier version becomes one of this version, with everything in it, or stays what it was."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chrootsync.model import Record
from chrootsync.model.memory import Baseline, Hold, Memory
from chrootsync.state import pending, recall, schema
from tests.unit.machine import promptly
from tests.unit.test_state_database import CHROOT, FILE, NOW, PATH, PENDING, A, B, change, only, opened, repaired
from tests.unit.test_state_opening import locked

STATE = '{"type": "file", "mode": 420, "uid": 0, "gid": 0, "size": 3, "sha256": "' + A + '"}'
CHANGE = ("postfix", os.fsencode(CHROOT), os.fsencode(PATH), os.fsencode(PATH), "postfix.resolver", "outdated", "libc6")

RELOAD = '{"needed": true, "done": true, "pending": false, "command": [], "error": null, "output": ""}'

# Rows as version 1 wrote them.
ROWS: list[tuple[str, tuple[object, ...]]] = [
    ("INSERT INTO roots VALUES (1, ?)", (b"/",)),
    ("INSERT INTO repairs (id, root, began, trigger, version) VALUES (7, 1, ?, 'timer', '0.1')", (NOW - 60,)),
    ("INSERT INTO repairs (id, root, began, trigger, version) VALUES (8, 1, ?, 'timer', '0.1')", (NOW,)),
    (
        "INSERT INTO changes VALUES (1, 7, 1, ?, ?, ?, ?, ?, ?, ?, NULL, ?, 'repaired', '', NULL)",
        (*CHANGE, STATE),
    ),
    (
        "INSERT INTO steps VALUES (1, 8, 1, ?, ?, '[1, 2]', NULL, ?, ?, ?, ?, ?, ?, ?, NULL, ?, 'unknown', '', NULL)",
        (b".new", b".new", *CHANGE, STATE),
    ),
    ("INSERT INTO baselines VALUES (1, ?, ?, ?, ?)", (CHANGE[1], CHANGE[2], STATE, NOW - 60)),
    ("INSERT INTO sources VALUES (1, ?, '[1, 2, 3, 4, 5]')", (CHANGE[3],)),
    ("INSERT INTO digests VALUES (1, 1, ?, ?)", (CHANGE[3], B)),
    ("INSERT INTO due VALUES (1, 'postfix', '{\"last\": 5.0}')", ()),
    (
        "INSERT INTO reloads VALUES (7, 'postfix', ?)",
        (RELOAD,),
    ),
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A database as version 1 left it."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as connection:
        for statement in schema.MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
        for statement, values in ROWS:
            connection.execute(statement, values)
        connection.execute("PRAGMA journal_mode = WAL")
    (place / "state.db").chmod(0o600)
    return place


def test_everything_survives(directory: Path) -> None:
    with opened(directory) as database:
        assert database.notes == []
        assert not database.fresh
        assert only(database) == Memory(
            baseline=Baseline(state=FILE, written=NOW - 60), digests=frozenset({B}), repaired=(A,)
        )
        assert database.placed(CHROOT) == [], "who put it there was not remembered then"
        assert database.sources() == {PATH: (1, 2, 3, 4, 5)}
        assert database.reloads() == {"postfix": Record(last=5.0)}
        (unfinished,) = database.unfinished()
        assert (unfinished.repair, unfinished.steps[0].inode) == (8, (1, 2))
        repair = database.repair(7)
        assert repair is not None
        assert (repair.undoes, repair.changes) == (None, (change(),))
        assert repair.reloads["postfix"].done
        database.recovered(unfinished, [])
        hold = Hold(since=NOW, until=NOW + 1, repair=7, source=None, restored=None)
        database.hold(CHROOT, PATH, hold)
        assert only(database).hold == hold
        assert repaired(database, change(), undoes=7) == 8
    assert not pending(os.fspath(directory))


def test_who_reads_leaves_it_as_it_is(directory: Path) -> None:
    before = (directory / "state.db").read_bytes()
    with opened(directory, write=False) as database:
        assert only(database) == Memory()
        assert database.fresh
        assert database.notes == [
            f"{directory}/state.db: is of an earlier version of chrootsync; check --fix brings it up to date"
        ]
    assert (directory / "state.db").read_bytes() == before


def test_while_it_is_locked_it_stays_as_it_is(directory: Path) -> None:
    with locked(directory, "BEGIN EXCLUSIVE"), promptly(), opened(directory) as database:
        assert only(database) == Memory()
        assert database.notes == [
            f"{directory}/state.db: cannot be written (another program has it locked); this run is not remembered"
        ]
    assert list(directory.glob("*bad*")) == []
    with opened(directory) as database:
        assert database.notes == []
        assert only(database) != Memory()


def test_a_step_that_fails_changes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*schema.MIGRATIONS[1], "CREATE TABLE roots (id)")
    with (
        monkeypatch.context() as patch,
        closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as found,
    ):
        patch.setattr(schema, "MIGRATIONS", (schema.MIGRATIONS[0], broken))
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(found)
        assert schema.version_of(found) == 1
        assert found.execute("SELECT count(*) FROM sqlite_master WHERE name = 'holds'").fetchone() == (0,)
    with opened(directory) as database:
        assert database.notes == []
        assert only(database) != Memory()


def test_a_new_database_is_what_an_old_one_becomes(directory: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for place in (directory, new):
        with opened(place) as database:
            database.remember(PENDING)
    assert columns(directory) == columns(new)


def test_what_version_2_put_is_nobodys(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as connection:
        for statement in schema.MIGRATIONS[1]:
            connection.execute(statement)
        connection.execute("PRAGMA user_version = 2")
    with opened(directory) as database:
        assert (database.notes, database.placed(CHROOT)) == ([], [])
        assert only(database).baseline == Baseline(state=FILE, written=NOW - 60)
        repaired(database, replace(change(), before=FILE), began=NOW)
        assert database.placed(CHROOT) == [], "a refresh puts nothing there"
        repaired(database, change(after=None), began=NOW)
        repaired(database, change(), began=NOW)
        assert [(one.path, one.since) for one in database.placed(CHROOT)] == [(PATH, NOW)]


def columns(directory: Path) -> set[tuple[object, ...]]:
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
        return {
            (table, *column)
            for table in tables
            for column in connection.execute("SELECT * FROM pragma_table_info(?)", (table,))
        }


def test_questions_are_answered_by_indexes(directory: Path) -> None:
    """However much is remembered, a check looks at what it asks for only."""
    with opened(directory):
        pass
    with closing(sqlite3.connect(directory / "state.db")) as connection:
        connection.execute("CREATE TEMP TABLE spots (number INTEGER PRIMARY KEY, chroot BLOB, path BLOB, source BLOB)")
        for query, values in (
            (recall._BASELINES, (1,)),
            (recall._HOLDS, (1, 2)),
            (recall._CHANGES, (1, "a", "b", 2)),
            (recall._DIGESTS, (1,)),
        ):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            scans = [step for step in plan if step.startswith("SCAN") and "spots" not in step and "wanted" not in step]
            assert scans == [], query
