"""Files that are not in memory are asked for together; what is in memory, or need not be read, is not."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chrootsync.inventory.ahead import BATCH, PLACES
from chrootsync.model import InstanceReport
from chrootsync.pipeline import check
from tests.unit.scenery import grow, instance, kinds, rule, task

NAMES = [f"/etc/many/{number:02}" for number in range(BATCH)]
RULE = rule(directories=("/etc/many",))


class Everything:
    """Knows every pair to be in sync."""

    def knows(self, _source: Any, _copy: Any) -> bool:
        return True

    def learn(self, _source: Any, _copy: Any) -> None:
        """There is nothing more to know."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    grow(tmp_path, {place: b"contents\n" for name in NAMES for place in (name, f"/jail/one{name}")})
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were asked for."""
    found: list[int] = []

    def note(fd: int, _offset: int, length: int, advice: int) -> None:
        assert (length, advice) == (256 << 10, os.POSIX_FADV_WILLNEED)
        found.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "posix_fadvise", note)
    return found


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    def preadv(*_arguments: object) -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)


def found(tree: Path, trust: Any = None, names: tuple[str, ...] = ("one",)) -> tuple[InstanceReport, ...]:
    with task(tree, [RULE], [instance(name) for name in names]) as (work, _):
        return check(work if trust is None else replace(work, trust=trust))


def inodes(tree: Path, *beginnings: str) -> set[int]:
    return {(tree / f"{beginning}{name}"[1:]).stat().st_ino for beginning in beginnings for name in NAMES}


def test_what_is_in_memory_is_not_asked_for(tree: Path, asked: list[int]) -> None:
    assert kinds(found(tree)) == {}
    assert asked == []


@pytest.mark.usefixtures("cold")
def test_both_sides_are_asked_for_where_they_are_not(tree: Path, asked: list[int]) -> None:
    assert kinds(found(tree)) == {}
    assert len(set(asked)) >= 2 * (BATCH - 4)


@pytest.mark.usefixtures("cold")
def test_a_copy_of_another_size_is_not_asked_for(tree: Path, asked: list[int]) -> None:
    (tree / f"jail/one{NAMES[0]}").write_bytes(b"longer than that\n")
    assert kinds(found(tree)) == {NAMES[0]: "differs"}
    assert (tree / f"jail/one{NAMES[0]}").stat().st_ino not in asked


@pytest.mark.usefixtures("cold")
def test_what_is_known_to_be_in_sync_is_not_asked_for(tree: Path, asked: list[int]) -> None:
    assert kinds(found(tree, Everything())) == {}
    assert asked == []


@pytest.mark.usefixtures("cold")
def test_of_many_copies_the_first_ones_are_asked_for(tree: Path, asked: list[int]) -> None:
    names = [f"n{number}" for number in range(PLACES + 3)]
    grow(tree, {f"/jail/{name}{path}": b"contents\n" for name in names for path in NAMES})
    assert kinds(found(tree, names=tuple(names))) == {}
    assert not inodes(tree, *(f"/jail/{name}" for name in names[PLACES:])).intersection(asked)


@pytest.mark.usefixtures("cold")
def test_what_cannot_be_asked_for_is_told_when_it_is_compared(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    (tree / NAMES[1][1:]).chmod(0o644)
    (tree / f"jail/one{NAMES[2]}").unlink()
    assert kinds(found(tree)) == {NAMES[2]: "missing"}


def test_a_file_system_that_does_not_tell_is_taken_for_one_in_memory(
    tree: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def preadv(*_arguments: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", preadv)
    assert kinds(found(tree)) == {}
    assert asked == []
