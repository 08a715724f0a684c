"""Whatever the state database has become, nothing fails; what is no database any more is set aside, and only that."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync.model import ChrootsyncError, Record
from chrootsync.model.memory import Memory
from chrootsync.state import opening, pending
from chrootsync.state.database import Database
from chrootsync.state.trouble import Place
from tests.unit.machine import STRANGER, descriptors, mount, needs_root, needs_user, promptly, with_private_mounts
from tests.unit.test_state_database import NOW, PENDING, change, only, opened, repaired, step

STAMP = "[0-9]" * 8 + "T" + "[0-9]" * 6


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with a database in which one repair is remembered."""
    return filled(tmp_path / "state")


def filled(directory: Path) -> Path:
    with opened(directory) as database:
        repaired(database, change(), change("/etc/hosts"))
        database.record_sources({"/etc/hosts": ((1, 2), "b" * 64)})
        database.remember({"postfix": Record(last=5.0)})
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def uses(database: Database) -> None:
    """Everything that a run does with a database; none of it may raise."""
    only(database)
    database.sources()
    database.reloads()
    for unfinished in database.unfinished():
        database.recovered(unfinished, [change()])
    repaired(database, change(), change("/etc/other"))
    database.record_sources({"/etc/hosts": ((3, 4), "c" * 64)})
    database.repairs(10)
    database.repair(1)
    database.prune(days=30, repairs=200, now=NOW)


def assert_set_aside(directory: Path, before: bytes, why: str) -> None:
    """One run sets it aside and begins anew, and the next one knows nothing of that."""
    with opened(directory) as database:
        (note,) = database.notes
        (aside,) = directory.glob(f"state.db.bad-{STAMP}")
        assert note == (
            f"{directory}/state.db: {why}; it was set aside as {aside.name}, and what was changed by whom cannot be "
            "told until the next repair"
        )
        assert aside.read_bytes() == before
        assert database.fresh
        assert only(database) == Memory()
        assert repaired(database, change()) == 1
    with opened(directory) as database:
        assert database.notes == []
        assert not database.fresh
        assert only(database).baseline is not None


def assert_only_told(directory: Path, why: str) -> None:
    """Who may not write says what is wrong, and leaves it alone; SQLite may make small files beside."""
    before = (directory / "state.db").read_bytes()
    with opened(directory, write=False) as database:
        uses(database)
        assert database.notes == [
            f"{directory}/state.db: {why}, so that nobody can tell what was changed by whom; check --fix sets it aside"
        ]
        assert database.fresh
    assert (directory / "state.db").read_bytes() == before
    assert list(directory.glob("*bad*")) == []


# --- What is no database ------------------------------------------------------------------------------------------

GARBAGE = {
    "empty": (b"", "is not a database"),
    "short": (b"SQLite format 3\0", "is not a database"),
    "text": (b"no database at all\n" * 100, "is damaged (file is not a database)"),
    "zeros": (bytes(8192), "is damaged (file is not a database)"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_set_aside(directory: Path, name: str) -> None:
    garbage, why = GARBAGE[name]
    (directory / "state.db").write_bytes(garbage)
    assert_only_told(directory, why)
    assert_set_aside(directory, garbage, why)


def test_somebody_elses_database_is_set_aside(directory: Path) -> None:
    path = directory / "state.db"
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE repairs (id)")
        connection.commit()
    assert_only_told(directory, "is not a database of chrootsync")
    assert_set_aside(directory, path.read_bytes(), "is not a database of chrootsync")


def test_a_newer_database_is_set_aside(directory: Path) -> None:
    path = directory / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert_only_told(directory, "was written by a newer version of chrootsync")
    with closing(sqlite3.connect(path)):
        pass
    assert_set_aside(directory, path.read_bytes(), "was written by a newer version of chrootsync")


def test_a_database_that_others_could_have_written_is_not_believed(directory: Path) -> None:
    path = directory / "state.db"
    path.chmod(0o620)
    assert_only_told(directory, "could have been written by others")
    assert_set_aside(directory, path.read_bytes(), "could have been written by others")


@needs_root
def test_a_database_of_somebody_else_is_not_believed(directory: Path) -> None:
    path = directory / "state.db"
    os.chown(path, STRANGER, 0)
    assert_only_told(directory, "could have been written by others")
    assert_set_aside(directory, path.read_bytes(), "could have been written by others")


def test_a_database_that_others_can_read_is_hidden_from_them(directory: Path) -> None:
    (directory / "state.db").chmod(0o644)
    with opened(directory) as database:
        assert database.notes == []
        assert not database.fresh
    assert (directory / "state.db").stat().st_mode & 0o777 == 0o600


def test_truncated_anywhere(directory: Path) -> None:
    path = directory / "state.db"
    whole = path.read_bytes()
    sizes = {0, 1, 99, 100, 511, 512, 513, *range(0, len(whole), 4096), len(whole) - 1, len(whole) // 2 + 7}
    for size in sorted(sizes):
        for name in directory.glob("state.db*"):
            name.unlink()
        path.write_bytes(whole[:size])
        path.chmod(0o600)
        with opened(directory, write=False) as database:
            uses(database)
            assert len(database.notes) <= 1
        with opened(directory) as database:
            told = [note for note in database.notes if "it was set aside as" in note]
            uses(database)
            assert len(database.notes) <= 1, size
        if size < len(whole) - 1:  # that byte may not have mattered
            assert len(told) == 1, size
            assert [aside.read_bytes() for aside in directory.glob(f"state.db.bad-{STAMP}")] == [whole[:size]]
        with opened(directory) as database:
            assert database.notes == []
            repaired(database, change())
            assert only(database).baseline is not None


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(st.tuples(st.integers(0, 1 << 20) | st.integers(0, 120), st.integers(0, 7)), min_size=1, max_size=40)
)
def test_bits_that_a_disk_has_turned(directory: Path, flips: list[tuple[int, int]]) -> None:
    """Nothing raises, not even for who reads; and after at most one run that notices, everything works again."""
    path, pristine = directory / "state.db", directory.parent / "pristine"
    if not pristine.exists():
        shutil.copy(path, pristine)
    for name in directory.iterdir():
        name.unlink()
    data = bytearray(pristine.read_bytes())
    for position, bit in flips:
        data[position % len(data)] ^= 1 << bit
    path.write_bytes(data)
    path.chmod(0o600)
    with promptly(30):
        for write in (False, True, True):
            with opened(directory, write=write) as database:
                uses(database)
        with opened(directory) as database:
            assert database.notes == []
            repaired(database, change())
            memory = only(database)
            assert memory.baseline is not None
            assert memory.baseline.state == change().after


def test_a_row_that_makes_no_sense_counts_as_damage(directory: Path) -> None:
    garble(directory, "UPDATE baselines SET state = x'ff'")
    with opened(directory, write=False) as database:
        assert only(database) == Memory()
        assert database.fresh
        why = "is damaged (what it holds makes no sense)"
        assert database.notes == [
            f"{directory}/state.db: {why}, so that nobody can tell what was changed by whom; check --fix sets it aside"
        ]
    with opened(directory) as database:
        assert [database.fresh, only(database), database.fresh] == [False, Memory(), True]
        assert len(database.notes) == 1
        assert "it was set aside as" in database.notes[0]
        uses(database)
        assert len(database.notes) == 1
    with opened(directory) as database:
        assert database.notes == []
        assert database.fresh


GARBLED = [
    "UPDATE baselines SET state = '{'",
    "UPDATE baselines SET state = '[]'",
    """UPDATE baselines SET state = '{"type": "cupboard"}'""",
    """UPDATE baselines SET state = '{"type": "file", "mode": "x"}'""",
    """UPDATE baselines SET state = '{"type": "device", "device": [1]}'""",
    """UPDATE baselines SET state = '{"type": "character-device", "device": [1, 2, 3]}'""",
    """UPDATE baselines SET state = '{"type": "file", "extended": "x"}'""",
    """UPDATE baselines SET state = '{"type": "link", "target": "\\ud800"}'""",
    "UPDATE baselines SET state = replace(hex(zeroblob(50000)), '0', '[')",
    "UPDATE baselines SET written = 9e999",
    "UPDATE baselines SET written = 'x'",
    "UPDATE changes SET kind = 'new'",
    "UPDATE changes SET status = 7",
    "UPDATE changes SET instance = x'00'",
    "UPDATE changes SET reason = '\"'",
    "UPDATE changes SET path = 'text'",
    "UPDATE changes SET after = CAST(x'ff' AS TEXT)",
    "UPDATE sources SET identity = '{}'",
    "UPDATE sources SET identity = '[1.5]'",
    "UPDATE repairs SET began = 'x'",
    "UPDATE repairs SET undoes = 'x'",
    "UPDATE due SET instance = x'00'",
    "UPDATE reloads SET reload = '{}'",
    "UPDATE steps SET inode = '7'",
    "UPDATE steps SET plan = 'x'",
    "UPDATE steps SET temporary = 7",
    "DROP TABLE changes",
    "ALTER TABLE baselines RENAME TO others",
    "CREATE TRIGGER x AFTER INSERT ON changes BEGIN SELECT raise(ABORT, 'x'); END",
]


def garble(directory: Path, statement: str) -> None:
    with closing(sqlite3.connect(directory / "state.db")) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("statement", GARBLED, ids=range(len(GARBLED)))
def test_rows_that_make_no_sense_are_survived(directory: Path, statement: str) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW, trigger="t", version="1")
        journal.plan([step(change("/etc/x"))])
        journal.settle([change()])
        journal.plan([step(change("/etc/x"))])
    garble(directory, statement)
    for write in (False, True, True):
        with opened(directory, write=write) as database:
            uses(database)
            assert len(database.notes) <= 1
    with opened(directory) as database:
        assert database.notes == []
        repaired(database, change())
        assert only(database).baseline is not None


def test_a_log_without_its_database_is_not_taken_for_the_next_ones(directory: Path) -> None:
    with opened(directory) as database:
        database.record_sources({"/etc/x": ((1,), "d" * 64)})
        for name in ("state.db-wal", "state.db-shm"):
            shutil.copy(directory / name, directory / f"{name}.copy")
    for name in ("state.db-wal", "state.db-shm"):
        (directory / f"{name}.copy").rename(directory / name)
    (directory / "state.db").unlink()
    with opened(directory) as database:
        assert database.fresh
        assert database.notes == []
        repaired(database, change())
        assert only(database).baseline is not None
    assert len(list(directory.glob(f"state.db.bad-{STAMP}-wal"))) == 1


def test_what_was_set_aside_does_not_fill_the_disk(directory: Path) -> None:
    for number in range(6):
        (directory / "state.db").write_bytes(b"garbage %d" % number * 100)
        with opened(directory, now=NOW + 60 * (number // 2)) as database:
            assert len(database.notes) == 1
    aside = sorted(path.name for path in directory.glob("state.db.bad-*"))
    assert len(aside) == opening.MOST_SET_ASIDE
    assert {path.read_bytes()[:9] for path in directory.glob("state.db.bad-*")} == {
        b"garbage 3",
        b"garbage 4",
        b"garbage 5",
    }


def test_what_was_never_finished_goes(directory: Path) -> None:
    (directory / "state.db.new-x").write_bytes(b"x")
    (directory / "state.db.new-x-journal").write_bytes(b"x")
    with opened(directory) as database:
        assert database.notes == []
        assert not database.fresh
    assert sorted(os.listdir(directory)) == ["cache-places.json", "state.db"]


# --- Where it cannot be believed, or not be used ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.db", "state.db-wal", "state.db-shm", "state.db-journal"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "fifo"])
def test_what_is_no_file_is_left_alone(directory: Path, tmp_path: Path, name: str, kind: str) -> None:
    path, victim = directory / name, tmp_path / "victim"
    if name == "state.db":
        path.rename(tmp_path / "other.db")
    if kind == "link":
        victim.write_bytes(b"precious")
        path.symlink_to(victim)
    elif kind == "dangling link":
        path.symlink_to(victim)
    elif kind == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    for write in (False, True):
        with promptly(), opened(directory, write=write) as database:
            uses(database)
            assert database.notes == [f"{path}: is not a regular file, and is left alone; move it away"]
            assert database.fresh
    assert victim.exists() == (kind == "link")
    assert kind != "link" or victim.read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
@pytest.mark.parametrize("write", [False, True])
def test_a_directory_that_others_can_write_to_is_not_believed(directory: Path, mode: int, write: bool) -> None:
    before = contents(directory)
    directory.chmod(mode)
    with opened(directory, write=write) as database:
        uses(database)
        reason = "is no directory that only root can write to"
        way = "so that nothing in it is believed; give it to root, mode 0700"
        assert database.notes == [f"{directory}: {reason}, {way}"]
        assert database.fresh
        assert database.kept("a" * 64) is None
    assert contents(directory) == before


@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_is_no_directory_is_not_believed(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "state"
    if kind == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        place.symlink_to("real")
    else:
        place.write_bytes(b"")
    for write in (False, True):
        with opened(place, write=write) as database:
            uses(database)
            assert len(database.notes) == 1
    assert kind == "file" or os.listdir(tmp_path / "real") == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = tmp_path / "file/state"
    with opened(place) as database:
        uses(database)
        assert database.notes == [f"{place}/state.db: cannot be written (Not a directory); this run is not remembered"]


def test_a_pending_reload_that_would_be_lost_is_told(directory: Path) -> None:
    directory.chmod(0o777)
    with opened(directory) as database:
        database.remember({"postfix": Record(last=6.0)})
        with pytest.raises(ChrootsyncError) as caught:
            database.remember(PENDING)
    assert str(caught.value) == (
        f"{directory}: cannot keep in mind that a reload is due (there is no usable database); reload by hand"
    )


def test_a_database_that_cannot_be_opened_to_write_for_once_is_not_set_aside(directory: Path) -> None:
    """As where a process has all the descriptors that it may have: SQLite then goes on with a file that it may read."""
    real = sqlite3.connect

    def connect(place: str, **options: Any) -> sqlite3.Connection:
        found: sqlite3.Connection = real(place.replace("mode=rw", "mode=ro"), **options)
        return found

    with mock.patch("sqlite3.connect", side_effect=connect), opened(directory) as database:
        uses(database)
        assert database.notes == [
            f"{directory}/state.db: cannot be written (it is read-only); this run is not remembered"
        ]
    assert not list(directory.glob("state.db.bad-*"))
    with opened(directory) as database:
        assert only(database).baseline is not None
        assert database.notes == []


def test_a_database_whose_header_forbids_writing_is_set_aside(directory: Path) -> None:
    path = directory / "state.db"
    with path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x03")
    with opened(directory) as database:
        uses(database)
        (note,) = database.notes
        assert note.startswith(f"{path}: is damaged (it is read-only); it was set aside as state.db.bad-")
    assert len(list(directory.glob("state.db.bad-*"))) == 1


@needs_user
def test_without_the_right_to_read(directory: Path) -> None:
    (directory / "state.db").chmod(0)
    with opened(directory, write=False) as database:
        uses(database)
        assert len(database.notes) == 1


@needs_user
def test_without_the_right_to_write(directory: Path) -> None:
    directory.chmod(0o500)
    try:
        with opened(directory) as database:
            assert only(database).baseline is not None
            uses(database)
            assert len(database.notes) == 1
    finally:
        directory.chmod(0o700)


@needs_root
def test_a_read_only_file_system_is_read(directory: Path) -> None:
    def check() -> None:
        before = contents(directory)
        mount("--bind", directory, directory)
        mount("-o", "remount,ro,bind", directory)
        assert_read_only(directory, "unable to open database file")
        assert contents(directory) == before

    with_private_mounts(check)


@needs_root
def test_a_read_only_file_system_with_a_log_is_read_as_far_as_it_can_be(directory: Path) -> None:
    """What a crashed machine leaves: SQLite reads the log, but not without the file that tells who uses it."""
    crashed(directory)

    def check() -> None:
        mount("--bind", directory, directory)
        mount("-o", "remount,ro,bind", directory)
        with opened(directory, write=False) as database:
            assert database.notes == []
            assert len(database.unfinished()) == 1
        mount("-o", "remount,rw,bind", directory)
        (directory / "state.db-shm").unlink()
        mount("-o", "remount,ro,bind", directory)
        for write in (False, True):
            with opened(directory, write=write) as database:
                uses(database)
                assert len(database.notes) == 1
                assert database.fresh
        mount("-o", "remount,rw,bind", directory)
        with opened(directory) as database:
            assert len(database.unfinished()) == 1
            assert database.notes == []

    with_private_mounts(check)


def crashed(directory: Path) -> None:
    """Leave a database as a killed run does."""
    code = f"""
import os, signal
from pathlib import Path
from tests.unit.test_state_database import NOW, change, opened, step
with opened(Path({os.fspath(directory)!r})) as database:
    database.begin(began=NOW, trigger="t", version="1").plan([step(change())])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (directory / "state.db-wal").stat().st_size > 0


def assert_read_only(directory: Path, why: str) -> None:
    """Everything that is remembered can be told, nothing is set aside, and one note says what is the matter."""
    with opened(directory, write=False) as database:
        assert database.notes == []
        assert only(database).baseline is not None
        assert not database.fresh
    with opened(directory) as database:
        assert only(database).baseline is not None
        assert not database.fresh
        uses(database)
        assert database.notes == [f"{directory}/state.db: cannot be written ({why}); this run is not remembered"]
        assert database.reloads() == {"postfix": Record(last=5.0)}
        database.remember({"postfix": Record(last=5.0)})
        with pytest.raises(ChrootsyncError, match="cannot keep in mind that a reload is due"):
            database.remember(PENDING)
        assert len(database.repairs(5)) == 1
        assert len(database.notes) == 1
        assert database.begin(began=NOW, trigger="t", version="1").id is None


@needs_root
@pytest.mark.parametrize("name", ["state", "state/state.db"])
def test_what_is_immutable_is_read(directory: Path, name: str) -> None:
    path = directory.parent / name
    done = subprocess.run(["chattr", "+i", path], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"chattr: {done.stderr}")
    try:
        with opened(directory) as database:
            assert only(database).baseline is not None
            uses(database)
            assert len(database.notes) == 1
            assert "cannot be written" in database.notes[0]
            assert not database.fresh
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    with opened(directory) as database:
        uses(database)
        assert database.notes == []
    assert list(directory.glob("*bad*")) == []


@needs_root
def test_a_full_disk(tmp_path: Path) -> None:
    place = tmp_path / "full"
    place.mkdir(mode=0o700)

    def check() -> None:
        mount("-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", place)
        filled(place)
        filler(place)
        assert_full(place)
        (place / "filler").unlink()
        with opened(place) as database:
            assert database.notes == []
            assert not database.fresh
            assert database.repairs(10)[-1].id == 1
            repaired(database, change("/etc/later"))
            assert database.notes == []

    with_private_mounts(check)


def filler(place: Path) -> None:
    with open(place / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def assert_full(place: Path) -> None:
    for _ in range(2):
        with opened(place) as database:
            journal = database.begin(began=NOW, trigger="t", version="1")
            for number in range(2000):
                journal.plan([step(change(f"/etc/{number}" + "x" * 1000))])
            uses(database)
            assert len(database.notes) == 1
            assert "this run is not remembered" in database.notes[0]
            with pytest.raises(ChrootsyncError):
                database.remember(PENDING)
    assert list(place.glob("*bad*")) == []


@needs_root
def test_a_disk_that_is_full_from_the_beginning(tmp_path: Path) -> None:
    place = tmp_path / "full"
    place.mkdir(mode=0o700)

    def check() -> None:
        mount("-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", place)
        filler(place)
        with opened(place) as database:
            uses(database)
            (note,) = database.notes
            assert "this run is not remembered" in note
            assert database.fresh
        assert os.listdir(place) == ["filler"]

    with_private_mounts(check)


# --- Locked -------------------------------------------------------------------------------------------------------

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("locked", flush=True)
sys.stdin.readline()
"""


@contextmanager
def locked(directory: Path, *statements: str) -> Iterator[None]:
    """Another process that has the database locked."""
    command = [sys.executable, "-c", LOCKER, os.fspath(directory / "state.db"), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield
        finally:
            process.kill()


def test_another_program_that_writes_keeps_nobody_from_reading(directory: Path) -> None:
    with locked(directory, "BEGIN EXCLUSIVE"), promptly():
        assert_read_only(directory, "another program has it locked")
    with opened(directory) as database:
        assert database.notes == []
        assert len(database.repairs(5)) == 1


def test_another_program_that_keeps_everybody_out(directory: Path) -> None:
    statements = ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE", "UPDATE repairs SET began = began")
    with locked(directory, *statements), promptly():
        with opened(directory, write=False) as database:
            uses(database)
            reason = "cannot be read (another program has it locked)"
            assert database.notes == [
                f"{directory}/state.db: {reason}, so that nobody can tell what was changed by whom"
            ]
            assert database.fresh
        with opened(directory) as database:
            uses(database)
            assert database.notes == [
                f"{directory}/state.db: cannot be written (another program has it locked); this run is not remembered"
            ]
    with opened(directory) as database:
        assert not database.fresh
        assert database.notes == []


def test_a_run_that_makes_the_database_is_waited_for(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with promptly(), opened(directory) as database:
            uses(database)
            assert database.notes == [f"{directory}: another run is at work there; this one is not remembered"]
    finally:
        os.close(fd)
    with opened(directory) as database:
        assert database.notes == []


def test_a_database_that_was_replaced_during_the_run_is_not_touched(directory: Path, tmp_path: Path) -> None:
    other = filled(tmp_path / "other")
    with opened(directory) as database:
        garble(directory, "UPDATE baselines SET state = '{'")
        os.replace(other / "state.db", directory / "state.db")
        whole = (directory / "state.db").read_bytes()
        assert only(database) == Memory()
        (note,) = database.notes
        assert note == f"{directory}/state.db: was replaced during this run, which is not remembered"
        assert (directory / "state.db").read_bytes() == whole


@pytest.mark.parametrize("how", ["absent", "garbage", "newer", "locked", "link"])
def test_no_descriptor_stays_open(tmp_path: Path, how: str) -> None:
    directory = filled(tmp_path / "state")
    path = directory / "state.db"
    if how == "garbage":
        path.write_bytes(b"x" * 5000)
    elif how == "newer":
        garble(directory, "PRAGMA user_version = 99")
    elif how in ("absent", "link"):
        path.unlink()
    if how == "link":
        path.symlink_to("x")
    before = descriptors()
    for write in (False, True):
        with opened(directory, write=write) as database:
            uses(database)
    assert descriptors() == before


def test_a_marker_that_cannot_be_made_means_no_plan(directory: Path) -> None:
    with opened(directory) as database:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("chrootsync.state.journal.set_marker", fail)
            journal = database.begin(began=NOW, trigger="t", version="1")
            journal.plan([step(change())])
        assert journal.id is None
        assert database.unfinished() == []
        assert database.notes == [
            f"{directory}/state.db: cannot be written (No space left on device); this run is not remembered"
        ]
    assert not pending(os.fspath(directory))


def fail(_directory: str) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- Errors in the middle -----------------------------------------------------------------------------------------


def no_rename(*_arguments: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_what_cannot_be_set_aside_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "state.db").write_bytes(b"garbage" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", no_rename)
        with opened(directory) as database:
            uses(database)
            reason = "is damaged and cannot be set aside (Operation not permitted)"
            assert database.notes == [f"{directory}/state.db: {reason}; move it away; this run is not remembered"]
            assert database.fresh
    assert (directory / "state.db").read_bytes() == b"garbage" * 1000


@pytest.mark.parametrize("call", ["rename", "open"])
def test_damage_that_cannot_be_set_aside_in_the_middle_is_told(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    garble(directory, "DROP TABLE sources")
    with opened(directory) as database:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, no_rename)
            assert database.sources() == {}
        (note,) = database.notes
        assert "cannot be set aside (Operation not permitted)" in note
        uses(database)
        assert database.notes == [note]
    assert list(directory.glob("*bad*")) == []


def test_an_error_in_the_middle_ends_reading_and_nothing_else(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class DiskError(sqlite3.OperationalError):
        sqlite_errorcode = sqlite3.SQLITE_IOERR | 3 << 8

    def broken(*_arguments: object) -> None:
        raise DiskError("disk I/O error")

    with opened(directory) as database:
        with monkeypatch.context() as patch:
            patch.setattr("chrootsync.state.recall.sources", broken)
            assert database.sources() == {}
        reason = "cannot be read (disk I/O error)"
        assert database.notes == [f"{directory}/state.db: {reason}, so that nobody can tell what was changed by whom"]
        assert database.sources() == {}
        assert database.fresh
    with opened(directory) as database:
        assert database.notes == []
        assert database.sources() != {}


def test_a_new_database_that_is_damaged_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "state"
    original = opening._create

    def create(where: Place) -> None:
        original(where)
        (place / "state.db").write_bytes(b"garbage" * 1000)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_create", create)
        with opened(place) as database:
            uses(database)
            reason = "is damaged (file is not a database), even though it is new; this run is not remembered"
            assert database.notes == [f"{place}/state.db: {reason}"]


def test_a_database_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "state"
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", no_rename)
        with opened(place) as database:
            uses(database)
            reason = "cannot be written (Operation not permitted)"
            assert database.notes == [f"{place}/state.db: {reason}; this run is not remembered"]
    assert os.listdir(place) == []


def test_reloads_of_earlier_versions_stay_until_they_are_remembered(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    legacy = directory / "reloads.json"
    legacy.write_text('{"postfix-in": {"last": 5, "pending": true, "since": 4}}')
    with monkeypatch.context() as patch:
        patch.setattr("chrootsync.state.database.set_marker", fail)
        with opened(directory) as database:
            assert database.reloads() == {"postfix": Record(last=5.0)}
            assert len(database.notes) == 1
    assert legacy.exists()
    with opened(directory) as database:
        assert database.reloads() == {
            "postfix": Record(last=5.0),
            "postfix-in": Record(last=5.0, pending=True, since=4.0),
        }
    assert not legacy.exists()
