"""Random machines that drift at random, and change while they are repaired: what holds whatever happens."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync.model import Device, FileType, InstanceReport, Link, Remedy, Rule
from chrootsync.root import kernel
from tests.unit.scenery import checked, drifts, fixed, grow, rule, task
from tests.unit.scenery import repair as repaired

from .counting import tried
from .place import ROOT, STRANGER, TEMPORARY, Inodes, Picture, inodes, picture

JAIL = "/jail/one"
NAMES = ["a", "b", "lib", "usr", "-rf", "two words", "é"]
CONTENTS = [b"", b"x", b"y", b"a longer one\n" * 40, b"\0\1" * 70_000]
CHANGING = [
    *("mkdir", "rmdir", "unlink", "link", "symlink", "mknod", "rename", "fsync", "write", "ftruncate"),
    *("fchmod", "chmod", "fchown", "chown", "utime", "removexattr"),
]

paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(lambda names: "/" + "/".join(names))


@dataclass(frozen=True)
class Put:
    """Put something at a path, in the place of what is there; ``contents`` belong to a file."""

    path: str
    what: str
    contents: bytes
    mode: int

    def do(self, root: str) -> None:
        """Put it there, whole; where the way there is none, nothing happens."""
        place, new = root + self.path, f"{root}/new"
        with suppress(OSError):
            self._make(new)
            if self.what == "nothing" or (os.path.isdir(place) and not os.path.islink(place)):
                _remove(place)
            if self.what != "nothing":
                os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
                os.rename(new, place)
        _remove(new)

    def _make(self, new: str) -> None:
        if self.what == "file":
            Path(new).write_bytes(self.contents)
            os.chmod(new, self.mode)
            if ROOT and self.mode == 0o640:
                os.chown(new, STRANGER, STRANGER)
        elif self.what == "link":
            os.symlink(["/etc/passwd", "nowhere", "nowhere/deep"][self.mode % 3], new)
        elif self.what == "fifo":
            os.mkfifo(new, 0o644)
        elif self.what == "directory":
            os.mkdir(new)
            os.chmod(new, 0o755 if self.mode & 1 else 0o700)


def puts(what: list[str]) -> st.SearchStrategy[Put]:
    """Things put at random places."""
    modes = st.sampled_from([0o644, 0o600, 0o755, 0o640])
    return st.builds(Put, path=paths, what=st.sampled_from(what), contents=st.sampled_from(CONTENTS), mode=modes)


anything = puts(["file", "file", "link", "fifo", "directory", "nothing"])
sources = st.dictionaries(paths, st.sampled_from(CONTENTS), min_size=1, max_size=6)
trees = st.lists(anything, max_size=8)
# A link to a directory is followed, so that things then belong elsewhere.
plain_trees = st.lists(puts(["file", "file", "fifo", "directory", "nothing"]), max_size=8)


@dataclass
class World:
    """A root with one chroot that may hold anything, and the rules for it."""

    root: str
    rules: list[Rule]

    def outside(self) -> tuple[Picture, Inodes]:
        """All that is not in the chroot."""
        seen = {path: one for path, one in picture(Path(self.root)).items() if not f"{path}/".startswith(f"{JAIL}/")}
        return seen, {path: one for path, one in self.inodes().items() if path in seen}

    def inside(self) -> Picture:
        """All that is in the chroot."""
        return picture(Path(self.root + JAIL))

    def inodes(self) -> Inodes:
        """(inode, ctime) of everything."""
        return inodes(Path(self.root))

    def temporaries(self) -> list[str]:
        """What is left over."""
        return [path for path in self.inodes() if f"/{TEMPORARY}" in path]

    def open(self) -> dict[str, str]:
        """What cannot be repaired, by path."""
        return {one.entry.path: str(one.kind) for one in drifts(checked(self.root, self.rules)) if is_open(one.remedy)}


def is_open(remedy: Remedy) -> bool:
    """Whether a repair leaves it as it is."""
    return remedy is Remedy.NONE


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where worlds are made, one after the other."""
    found = tmp_path_factory.mktemp("worlds")
    found.chmod(0o755)
    return found


def world(base: Path, host: dict[str, bytes], jail: list[Put]) -> World:
    """Make a world in place of the last one."""
    root = base / "root"
    shutil.rmtree(root, ignore_errors=True)
    grow(root, {"/precious": b"precious", JAIL: None, "/jail/other/etc/hosts": b"another's"})
    files = []
    for path, contents in sorted(host.items()):
        with suppress(OSError):
            grow(root, {path: contents})
            files.append(path)
    for put in jail:
        put.do(f"{root}{JAIL}")
    rules = [rule(files=tuple(files)), rule(id="test.link", links=(Link(path="/lib64", target="usr"),))]
    if ROOT:
        null = Device(path="/dev/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3)
        rules.append(rule(id="test.device", devices=(null,)))
    return World(os.fspath(root), rules)


random_worlds = settings(
    max_examples=min(settings().max_examples, 1000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(host=sources, jail=trees)
@random_worlds
def test_a_check_writes_nothing(base: Path, host: dict[str, bytes], jail: list[Put]) -> None:
    tried("example")
    here = world(base, host, jail)
    before = here.inodes()
    checked(here.root, here.rules)
    assert here.inodes() == before


@given(host=sources, jail=trees)
@random_worlds
def test_after_a_repair_only_that_is_left_which_has_no_remedy(
    base: Path, host: dict[str, bytes], jail: list[Put]
) -> None:
    tried("example")
    here = world(base, host, jail)
    outside = here.outside()
    found = drifts(fixed(here.root, here.rules))
    remaining = {one.entry.path for one in drifts(checked(here.root, here.rules))}
    assert remaining == {one.entry.path for one in found if is_open(one.remedy)}
    assert here.outside() == outside
    assert here.temporaries() == []


@given(host=sources, jail=trees)
@random_worlds
def test_a_second_repair_writes_nothing(base: Path, host: dict[str, bytes], jail: list[Put]) -> None:
    tried("example")
    here = world(base, host, jail)
    fixed(here.root, here.rules)
    before = here.inodes()
    fixed(here.root, here.rules)
    assert here.inodes() == before


@given(host=sources, jail=plain_trees, before=plain_trees)
@random_worlds
def test_whatever_was_there_before_a_repair_ends_the_same(
    base: Path, host: dict[str, bytes], jail: list[Put], before: list[Put]
) -> None:
    tried("example")
    here = world(base, host, [])
    fixed(here.root, here.rules)
    wanted = here.inside()
    here = world(base, host, [])
    for put in [*before, *jail]:
        put.do(here.root + JAIL)
    fixed(here.root, here.rules)
    left = {f"{path}/" for path in here.open()}
    for path, thing in here.inside().items():
        if path in wanted and not any(f"{path}/".startswith(one) or one.startswith(f"{path}/") for one in left):
            assert (thing.kind, thing.contents) == (wanted[path].kind, wanted[path].contents)


@given(
    host=sources,
    jail=trees,
    meddling=st.dictionaries(st.integers(0, 60), puts(["file", "file", "link", "nothing"]), max_size=4),
)
@random_worlds
def test_what_somebody_else_puts_there_meanwhile_is_not_lost(
    base: Path, host: dict[str, bytes], jail: list[Put], meddling: dict[int, Put]
) -> None:
    tried("example")
    here = world(base, host, jail)
    outside = here.outside()
    put: dict[str, bytes] = {}

    def meddle(point: int) -> None:
        if point in meddling:
            one = meddling[point]
            one.do(here.root + JAIL)
            put.pop(one.path, None)
            for path in [path for path in put if path.startswith(f"{one.path}/")]:
                del put[path]
            if one.what == "file" and holds(here.root + JAIL + one.path, one.contents):
                put[one.path] = one.contents

    reports = repaired_meanwhile(here, meddle)
    assert here.outside() == outside
    for path, contents in put.items():
        assert holds(here.root + JAIL + path, contents) or is_kept(here, path, contents, reports), f"{path} is lost"
    settle(here, reports)


@given(host=sources, jail=trees, meddling=st.dictionaries(st.integers(0, 60), puts(["file", "nothing"]), max_size=4))
@random_worlds
def test_sources_that_change_meanwhile_are_copied_as_they_are_in_the_end(
    base: Path, host: dict[str, bytes], jail: list[Put], meddling: dict[int, Put]
) -> None:
    tried("example")
    here = world(base, host, jail)

    def meddle(point: int) -> None:
        if point in meddling and not f"{meddling[point].path}/".startswith("/jail/"):
            meddling[point].do(here.root)

    reports = repaired_meanwhile(here, meddle)
    assert picture(Path(here.root, "jail/other"))["/etc/hosts"].contents == b"another's"
    settle(here, reports)


def settle(here: World, reports: Sequence[InstanceReport]) -> None:
    """Once nobody meddles any more, a repair makes it right; what is left over, the report has told.

    Where something else has taken the place of what was put, what stood there before is kept under another name.
    """
    names = told(reports)
    fixed(here.root, here.rules)
    assert {one.entry.path for one in drifts(checked(here.root, here.rules))} == set(here.open())
    assert [path for path in here.temporaries() if not any(name in path for name in names)] == []


def told(reports: Sequence[InstanceReport]) -> set[str]:
    """The names of what is left over, as the reasons of a report tell them."""
    outcomes = [one.outcome for report in reports for one in report.findings if one.outcome is not None]
    return {name for outcome in outcomes for name in re.findall(r"\.chrootsync-[-0-9a-z]+", outcome.reason)}


def is_kept(here: World, path: str, contents: bytes, reports: Sequence[InstanceReport]) -> bool:
    """Whether it went out of the way with a new directory that it was put into, whose name is told."""
    kept = [one for one in here.temporaries() if os.path.basename(one) == os.path.basename(path)]
    return any(holds(here.root + one, contents) and any(name in one for name in told(reports)) for one in kept)


def holds(path: str, contents: bytes) -> bool:
    """Whether there is a file with such contents."""
    with suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode) and Path(path).read_bytes() == contents
    return False


def repaired_meanwhile(here: World, meddle: Callable[[int], None]) -> tuple[InstanceReport, ...]:
    """Compare, and repair while somebody meddles before and after each step."""
    from chrootsync.pipeline import check

    with task(here.root, here.rules) as (work, writer):
        found = check(work)
        with watched(meddle):
            return repaired(work, writer, found)


@contextmanager
def watched(at: Callable[[int], None]) -> Iterator[None]:
    """Tell of each point: before and after each call that changes a file system."""
    reached, busy = 0, False

    def point() -> None:
        nonlocal reached, busy
        if not busy:
            busy = True
            at(reached)
            busy = False
            reached += 1

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            point()
            try:
                return real(*arguments, **named)
            finally:
                point()

        return call

    modules: list[tuple[Any, str]] = [(kernel, "rename"), *((os, name) for name in CHANGING)]
    with pytest.MonkeyPatch.context() as patch:
        for module, name in modules:
            patch.setattr(module, name, around(getattr(module, name)))
        yield


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
