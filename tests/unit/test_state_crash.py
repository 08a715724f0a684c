"""A run that is killed between any two steps leaves everything whole in the database, and nothing is forgotten."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chrootsync.model.memory import Spot
from chrootsync.state import pending
from chrootsync.state.database import Database, open_database
from tests.unit.machine import promptly
from tests.unit.test_state_database import CHROOT, FILE, NOW, PENDING, change, only, opened, repaired, step
from tests.unit.test_state_kept import Place

CHECKOUT = Path(__file__).parents[2]
STEPS = ("fsync", "rename", "open", "mkdir", "unlink")


def live(directory: Path, say: Callable[[str], None]) -> None:
    """A run that does everything, and says how far it is."""
    with opened(directory) as database:
        database.remember(PENDING)
        say("remembered")
        journal = database.begin(began=NOW, trigger="t", version="1")
        journal.plan([step(change(), ".a")])
        say("planned")
        digest = journal.keep(Place(Path(__file__)))
        told = replace(change(), before=replace(FILE, sha256=digest), kept=True)
        journal.intend([replace(step(told, ".a"), inode=(1, 2))])
        say("intended")
        journal.settle([told])
        say("settled")
        database.remember({})
        say("reloaded")
        database.prune(days=30, repairs=200, now=NOW)
    say("closed")


def run(directory: Path, last: int) -> tuple[list[str], int]:
    """How far a run came that was killed before its step of that number, and how it ended."""
    output, report = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of a test runner hold no locks of ours
        child = os.fork()
    if child == 0:
        try:
            count_steps(last)
            live(directory, lambda word: speak(report, word))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(report)
    with open(output, encoding="ascii") as file:
        said = file.read().split()
    return said, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def speak(report: int, word: str) -> None:
    os.write(report, f"{word} ".encode("ascii"))


def count_steps(last: int) -> None:
    """Count what this process does to files, and every statement that SQLite is given; it dies before the last one."""
    left = iter(range(last - 1, -1, -1))

    def one_more(_statement: str = "") -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            one_more()
            return original(*arguments, **options)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(one_more)
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]


@pytest.mark.parametrize("part", range(4))
def test_killed_before_any_step(tmp_path: Path, part: int) -> None:
    last, code = 1 + part, -signal.SIGKILL
    while code == -signal.SIGKILL:
        directory = tmp_path / f"state-{last}"
        said, code = run(directory, last)
        assert_whole(directory, said)
        last += 4
    assert code == 0
    assert last > 60, "the steps were counted"


def assert_whole(directory: Path, said: list[str]) -> None:
    """What a run was told to be on the disk is there, the marker was never late, and the next run can go on."""
    place = os.fspath(directory)
    with opened(directory, write=False) as database:
        assert_remembered(database, said)
        assert pending(place) or not (database.unfinished() or database.reloads())
    with opened(directory) as database:
        for one in database.unfinished():
            database.recovered(one, [change()])
            assert only(database).baseline is not None
        database.remember({})
        repaired(database, change())
        database.prune(days=30, repairs=200, now=NOW)
        for told in (told for repair in database.repairs(5) for told in repair.changes if told.kept):
            assert told.before is not None
            assert database.kept(told.before.sha256 or "") is not None
        assert database.notes == []
    assert not pending(place)
    assert list(directory.glob("state.db.*")) == []
    assert list(directory.glob("kept/new-*")) == []


def assert_remembered(database: Database, said: list[str]) -> None:
    unfinished, reloads = database.unfinished(), database.reloads()
    if "settled" in said:
        assert (len(unfinished), len(database.repairs(5))) == (0, 1)
        assert only(database).baseline is not None
        assert reloads == ({} if "reloaded" in said else reloads)
    else:
        assert reloads == (PENDING if "remembered" in said else reloads)
        assert unfinished or "planned" not in said or database.repairs(5)[0].changes
        assert "intended" not in said or not unfinished or unfinished[0].steps[0].inode == (1, 2)
    assert database.notes == []


# --- Readers beside a writer --------------------------------------------------------------------------------------

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.unit.test_state_database import FILE, NOW, change, opened, repaired
number = 0
while True:
    number += 1
    with opened(Path(sys.argv[1])) as database:
        for _ in range(5):
            sha256 = f"{number:064x}"
            repaired(database, *(change(f"/etc/{one}", after=replace(FILE, sha256=sha256)) for one in range(10)))
            database.prune(days=30, repairs=20, now=NOW)
        assert database.notes == [], database.notes
    if number == 1:
        print("ready", flush=True)
"""


def test_who_reads_beside_a_writer_sees_whole_repairs(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    command = [sys.executable, "-c", WRITER, os.fspath(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=CHECKOUT) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            seen: set[str] = set()
            deadline = time.monotonic() + 3
            with promptly(30):
                while time.monotonic() < deadline:
                    seen.add(read_once(directory))
            assert writer.poll() is None
        finally:
            writer.kill()
    assert len(seen) > 3, "something was written meanwhile"


def read_once(directory: Path) -> str:
    with closing(open_database(os.fspath(directory), "/", write=False, now=NOW)) as database:
        memories = database.recall([Spot(CHROOT, f"/etc/{one}", None) for one in range(10)])
        digests = {None if memory.baseline is None else memory.baseline.state.sha256 for memory in memories}
        for repair in database.repairs(3):
            assert len(repair.changes) in (0, 10)
        assert database.notes == []
    (digest,) = digests
    assert digest is not None
    return digest


def test_two_runs_make_the_database_at_once(tmp_path: Path) -> None:
    """On different roots, which may share a state directory."""
    directory = tmp_path / "state"
    code = """
import json, sys
from contextlib import closing
from chrootsync.state.database import open_database
from tests.unit.test_state_database import NOW, change, repaired
with closing(open_database(sys.argv[1], sys.argv[2], write=True, now=NOW, patience=60)) as database:
    print(json.dumps([repaired(database, change()), database.notes]))
"""
    roots = [f"/srv/{number}" for number in range(6)]
    command = [sys.executable, "-c", code, os.fspath(directory)]
    runs = [subprocess.Popen([*command, root], stdout=subprocess.PIPE, cwd=CHECKOUT) for root in roots]
    said = [json.loads(one.communicate()[0]) for one in runs]
    assert sorted(number for number, _ in said) == [1, 2, 3, 4, 5, 6]
    for root, (number, notes) in zip(roots, said, strict=True):
        assert notes == []
        with opened(directory, root=root) as database:
            assert [repair.id for repair in database.repairs(5)] == [number]
            assert only(database).baseline is not None
    assert sorted(os.listdir(directory)) == ["cache-places.json", "state.db"]


def test_an_interrupt_takes_back_what_was_half_done(tmp_path: Path) -> None:
    with opened(tmp_path / "state") as database:
        journal = database.begin(began=NOW, trigger="t", version="1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("chrootsync.state.history.add_changes", interrupt)
            journal.plan([step(change())])
            with pytest.raises(KeyboardInterrupt):
                journal.settle([change()])
        assert len(database.unfinished()) == 1
        journal.settle([change()])
        assert database.unfinished() == []
        assert len(database.repairs(5)) == 1
        assert database.notes == []


def interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt
