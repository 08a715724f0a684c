"""Two processes find what one finds, in the same order, and what happens to the other one is never silence."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chrootsync import inventory
from chrootsync.inventory import halves
from chrootsync.inventory.files import FileLooker
from chrootsync.model import ChrootsyncError, Entry, Guard, Presence, Problem, Rule
from chrootsync.pipeline import Task, check
from chrootsync.root import contents
from chrootsync.root.noting import NotingRoot
from chrootsync.state.trust import SETTLED, Pairs
from tests.unit.machine import descriptors
from tests.unit.scenery import grow, instance, kinds, rule, task

NAMES = [f"{number:02}" for number in range(40)]
RULES = (
    rule(directories=("/etc/many",)),
    rule(id="guarded", files=("/etc/guarded",), guard=Guard(matches="never")),
    rule(id="gone", files=("/etc/gone",)),
)
JAILS = ("one", "two", "three")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few pairs are much already, and there are two processors."""
    monkeypatch.setattr(inventory, "ALONE", 5)
    monkeypatch.setattr(halves, "BLOCK", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copies that are in sync, and some of everything that may be wrong with one."""
    grow(tmp_path, {"/etc/guarded": b"x", "/etc/many": None})
    for number, name in enumerate(NAMES):
        data = os.urandom(number)
        grow(tmp_path, {f"/etc/many/{name}": data, **{f"/jail/{jail}/etc/many/{name}": data for jail in JAILS}})
        place = tmp_path / f"jail/two/etc/many/{name}"
        match number % 8:
            case 1:
                place.write_bytes(data[:-1] + b"\xff\xff")
            case 2:
                place.write_bytes(bytes(number))
            case 3:
                place.chmod(0o600)
            case 4:
                place.unlink()
            case 5:
                place.unlink()
                place.symlink_to(f"elsewhere/\udcff{name}")
            case 6:
                place.unlink()
                place.mkdir()
            case 7:
                os.link(place, place.with_name(f"link{name}"))
    return tmp_path


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were forked."""
    pids: list[int] = []
    real = os.fork

    def fork() -> int:
        pid = real()
        pids.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", fork)
    return pids


def found(tree: Path, **fields: Any) -> list[Entry]:
    with task(tree, RULES, [instance(name) for name in JAILS]) as (work, _):
        return entries(replace(work, **fields))


def entries(work: Task) -> list[Entry]:
    return list(inventory.entries(work.host, work.instances, work.rule_sets, trust=work.trust))


def told(entry: Entry) -> tuple[object, ...]:
    """All of an entry but its instance, of which each scene has its own."""
    return (entry.instance.name, repr(replace(entry, instance=None, rule=None)), entry.rule.id)  # type: ignore[arg-type]


def test_two_processes_find_what_one_finds(tree: Path, monkeypatch: pytest.MonkeyPatch, forks: list[int]) -> None:
    before = descriptors()
    two = [told(entry) for entry in found(tree)]
    assert len(forks) == 1
    assert descriptors() == before
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert two == [told(entry) for entry in found(tree)]
    assert len(forks) == 1
    assert len(two) > 3 * len(NAMES)


def test_instances_and_rules_are_the_very_same(tree: Path) -> None:
    with task(tree, RULES, [instance(name) for name in JAILS]) as (work, _):
        seen = entries(work)
        assert {id(entry.instance) for entry in seen} == {id(one) for one in work.instances}
        assert {id(entry.rule) for entry in seen} <= {id(one) for group in work.rule_sets for one in group.rules}


def test_what_is_only_kept_fresh(tree: Path, monkeypatch: pytest.MonkeyPatch, forks: list[int]) -> None:
    fresh: list[Rule] = [rule(directories=("/etc/many",), presence=Presence.IF_PRESENT)]

    def look() -> list[tuple[object, ...]]:
        with task(tree, fresh, [instance(name) for name in JAILS]) as (work, _):
            return [told(entry) for entry in entries(work)]

    two = look()
    assert len(forks) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert two == look()


def no_process(*_arguments: object) -> int:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def test_little_needs_no_second_process(tree: Path, monkeypatch: pytest.MonkeyPatch, forks: list[int]) -> None:
    monkeypatch.setattr(inventory, "ALONE", 3 * len(NAMES) + 6)
    found(tree)
    assert forks == []


@pytest.mark.parametrize("shows_progress", [True, False])
def test_a_process_with_threads_is_not_forked(tree: Path, forks: list[int], shows_progress: bool) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=shows_progress)
    thread.start()
    try:
        found(tree)
    finally:
        end.set()
        thread.join()
    assert len(forks) == shows_progress


@pytest.mark.parametrize("call", ["fork", "pipe2"])
def test_where_there_can_be_no_process_one_does_it_all(tree: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = descriptors()
    expected = [told(entry) for entry in found(tree)]
    monkeypatch.setattr(os, call, no_process)
    assert [told(entry) for entry in found(tree)] == expected
    assert descriptors() == before


def in_the_other(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object], after: int = 3) -> None:
    """Have something happen in the other process, after it has looked at some needs."""
    here, real, looks = os.getpid(), FileLooker.look, iter(range(1000))

    def look(self: FileLooker, need: Any) -> Any:
        if os.getpid() != here and next(looks) == after:
            do()
        return real(self, need)

    monkeypatch.setattr(FileLooker, "look", look)


@pytest.fixture
def children() -> Iterator[None]:
    before = processes()
    yield
    assert processes() <= before


def processes() -> set[str]:
    """The children of this process; other tests may have left some."""
    return {one for task in os.listdir("/proc/self/task") for one in children_of(task)}


def children_of(task: str) -> list[str]:
    with open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
        return file.read().split()


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("after", [0, 3, 12])
def test_a_process_that_is_killed_ends_the_run(tree: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    before = descriptors()
    in_the_other(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL), after)
    with pytest.raises(ChrootsyncError) as caught:
        found(tree)
    reason = "half of the files were not compared: the process that did so was ended; check once more"
    assert str(caught.value) == reason
    assert descriptors() == before


@pytest.mark.usefixtures("children")
@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), MemoryError("none left"), OSError(5, "broken")])
def test_no_error_of_the_other_process_is_silent(
    tree: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    in_the_other(monkeypatch, fail)
    with pytest.raises((ChrootsyncError, RuntimeError)) as caught:
        found(tree)
    if isinstance(error, Exception):
        assert str(error) in str(caught.value)
        assert "Traceback" in str(caught.value)


@pytest.mark.usefixtures("children")
def test_signals_that_stop_a_run_are_for_the_first_process(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)

    expected = [told(entry) for entry in found(tree)]
    in_the_other(monkeypatch, stop)
    assert [told(entry) for entry in found(tree)] == expected
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


@pytest.mark.usefixtures("children")
def test_who_stops_listening_ends_the_other_process(tree: Path, forks: list[int]) -> None:
    def interrupt(_entry: Entry) -> None:
        if forks:
            raise KeyboardInterrupt

    with task(tree, RULES, [instance(name) for name in JAILS]) as (work, _), pytest.raises(KeyboardInterrupt):
        check(replace(work, seen=interrupt))
    assert len(forks) == 1


def test_what_both_found_in_sync_is_known(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = str(tmp_path / "state")

    def run() -> tuple[Pairs, dict[str, str]]:
        pairs = Pairs(state, "/", frozenset({0, os.geteuid()}), time.time() + SETTLED + 5, frozenset())
        with task(tree, RULES, [instance(name) for name in JAILS]) as (work, _):
            seen = kinds(check(replace(work, trust=pairs)))
        pairs.save(whole=True)
        return pairs, seen

    _, first = run()
    kept = {path.name: path.read_bytes() for path in Path(state).iterdir()}
    _, second = run()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    reads: list[object] = []
    real = contents.same

    def same(source: int | bytes, openers: list[contents.Opener]) -> Iterator[bool | Problem]:
        reads.extend(openers)
        return real(source, openers)

    monkeypatch.setattr(contents, "same", same)
    _, third = run()
    assert first == second == third
    assert len(reads) <= len(NAMES)  # those that differ, and no others
    assert {path.name: path.read_bytes() for path in Path(state).iterdir()} == kept


def test_what_the_other_looked_at_is_noted(tree: Path) -> None:
    with task(tree, RULES, [instance(name) for name in JAILS]) as (work, _), closing(NotingRoot(str(tree))) as root:
        entries(replace(work, host=replace(work.host, root=root)))
        assert {f"/etc/many/{name}" for name in NAMES} <= root.looked
