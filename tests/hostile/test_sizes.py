"""What is very large, never ends, or grows while it is read."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from chrootsync.root.files import list_directory
from tests.hostile.arena import ATTACKER, NEW, OLD, Arena, thorough
from tests.hostile.racing import meanwhile
from tests.unit.machine import mount, needs_root, promptly, with_private_mounts

TIB = 1 << 40
MANY = 20_000
VERY_MANY = 1_000_000


@pytest.fixture
def many(arena: Arena) -> Iterator[int]:
    """How many entries a directory gets; in the long run so many that everything takes its time."""
    if thorough():
        arena.patience = 600
    yield VERY_MANY if thorough() else MANY
    shutil.rmtree(arena.jail)


def crowd(directory: Path, count: int) -> None:
    """Fill a directory with names; all of them are one empty file, of which each file system allows some links."""
    directory.mkdir(parents=True, exist_ok=True)
    fd = os.open(directory, os.O_RDONLY)
    first = ""
    try:
        for number in range(count):
            if number % 60_000 == 0:
                first = f"crowd-{number}"
                os.close(os.open(first, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd))
            else:
                os.link(first, f"crowd-{number}", src_dir_fd=fd, dst_dir_fd=fd)
    finally:
        os.close(fd)


def test_a_directory_with_very_many_entries_is_walked_and_written_like_any_other(arena: Arena, many: int) -> None:
    crowd(arena.jail / "etc", many)
    arena.plant({"/etc/conf": OLD})
    arena.trial({"/etc/conf": "differs"})


def test_very_many_entries_that_the_host_does_not_have_are_passed_over(arena: Arena, many: int) -> None:
    arena.rule(directories=["/etc"], presence="if-present")
    crowd(arena.jail / "etc", many)
    arena.plant({"/etc/conf": OLD})
    arena.trial({"/etc/conf": "differs"})


def test_very_many_entries_in_a_mirrored_directory_are_all_told(arena: Arena, many: int) -> None:
    arena.tally.add("case")
    arena.rule(directories=["/etc"], mirror=True)
    crowd(arena.jail / "etc", many // 10)
    arena.plant({"/etc/conf": OLD, "/etc/calm": NEW})
    with arena.untouched(inside=True):
        found = arena.check()
    assert len(found.drifts("one")) == many // 10 + 1
    with arena.untouched():
        assert arena.fix().outcomes["/etc/conf"] == "repaired"


@needs_root
def test_very_many_entries_of_the_attackers_are_not_even_listed(arena: Arena, many: int) -> None:
    arena.rule(directories=["/etc"], presence="if-present")
    crowd(arena.jail / "etc", many)
    arena.plant({"/etc/conf": OLD})
    arena.give_away("/etc")
    with mock.patch("chrootsync.root.read.list_directory", wraps=list_directory) as listed:
        assert arena.check().kinds == {"/etc": "unsafe"}
    assert "/etc" not in [call.args[0].path for call in listed.call_args_list]
    arena.trial({"/etc": "unsafe"}, says="give it to root", mend=lambda: arena.give_away("/etc", owner=0))


# --- Sparse files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [TIB, (1 << 43), 256 << 20, (256 << 20) + 1])
def test_a_huge_copy_is_neither_read_nor_kept(arena: Arena, size: int) -> None:
    arena.plant({"/etc/conf": OLD})
    try:
        os.truncate(arena.jail / "etc/conf", size)
    except OSError as error:
        pytest.skip(f"no such large files here: {error}")
    with promptly(15):
        arena.trial({"/etc/conf": "differs"}, says=f"{size} bytes here, {len(NEW)} on the host")


@needs_root
def test_a_huge_source_fills_its_own_file_system_at_most_for_a_moment(arena: Arena) -> None:
    """It is sparse, and its copy would not be: nothing is put, and the room is free again."""

    def prove() -> None:
        place = arena.top / "small"
        place.mkdir()
        mount("-t", "tmpfs", "-o", "size=8m,mode=0755", "tmpfs", place)
        (place / "arena").mkdir(mode=0o755)
        there = Arena(place / "arena", arena.tally)
        there.plant({"/etc/conf": OLD})
        os.truncate(there.image / "etc/conf", TIB)
        free = os.statvfs(place).f_bavail

        def mend() -> None:
            assert (there.jail / "etc/conf").read_bytes() == OLD
            assert free - os.statvfs(place).f_bavail < 16
            os.truncate(there.image / "etc/conf", len(NEW))

        there.trial({"/etc/conf": "differs"}, says="no space left on device", mend=mend)

    with_private_mounts(prove)


# --- What changes while it is read --------------------------------------------------------------------------------


def test_a_source_that_keeps_growing_is_never_half_copied(arena: Arena) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    arena.changes(arena.image / "etc/conf")
    fd = os.open(arena.image / "etc/conf", os.O_WRONLY | os.O_APPEND)
    with arena.untouched(), meanwhile(lambda: os.write(fd, b"x" * 4096)), promptly(15):
        found = arena.said(arena.fix())
    os.close(fd)
    assert found.code in (0, 3)
    if found.code == 3:
        assert "keeps changing" in found.messages
        assert (arena.jail / "etc/conf").read_bytes() == OLD
    os.truncate(arena.image / "etc/conf", 100)
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


def test_a_copy_that_keeps_growing_holds_nothing_up(arena: Arena) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": NEW.upper()})
    fd = os.open(arena.jail / "etc/conf", os.O_WRONLY | os.O_APPEND)
    with arena.untouched(), meanwhile(lambda: os.write(fd, b"x")), promptly(15):
        assert arena.said(arena.check()).code == 1
        arena.said(arena.fix())
    os.close(fd)
    arena.fix()
    assert arena.check().kinds == {}


@needs_root
@pytest.mark.parametrize("where", ["jail/one/etc/conf", "etc/conf"], ids=["copy", "source"])
def test_a_file_that_becomes_endless_once_it_is_opened_holds_nothing_up(arena: Arena, where: str) -> None:
    """Its owner is told when it is opened, and makes a terabyte of nothing of it while it is read."""
    arena.tally.add("case")
    arena.patience = 3
    arena.plant({"/etc/conf": OLD})
    file = arena.image / where
    os.truncate(file, 100 << 20)
    os.chown(file, ATTACKER, ATTACKER)
    fd, told = os.open(file, os.O_RDWR), watch(file)

    def stretch() -> None:
        os.read(told, 4096)
        os.ftruncate(fd, TIB)

    with meanwhile(stretch):
        assert arena.said(arena.check()).code == 1
    os.close(told)
    os.close(fd)


IN_OPEN = 0x20


def watch(path: Path) -> int:
    """A descriptor from which can be read that a file was opened, inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), IN_OPEN) < 0:
        pytest.skip(f"no inotify here: {os.strerror(ctypes.get_errno())}")
    return int(fd)
