"""What ``check --trust-stat`` leaves unread, and that no change can hide behind it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from chrootsync.model import Guard, InstanceReport, Rule
from chrootsync.pipeline import check
from chrootsync.root import contents
from chrootsync.state.trust import MAGIC, SETTLED, SIZE, Pairs
from tests.unit.machine import mount, needs_root, set_acl, with_private_mounts
from tests.unit.scenery import grow, instance, kinds, rule, task

NOW, LATER = b"127.0.0.1 localhost\n", b"127.0.0.2 localhost\n"
RULE = rule(files=("/etc/hosts",))
OWNERS = frozenset({0, os.geteuid()})


class Place:
    """A root with one chroot, and the state beside it; every run comes long after what was changed before."""

    def __init__(self, base: Path) -> None:
        """Begin with a copy that is in sync."""
        self.root, self.state = base / "root", base / "state"
        self.source, self.copy = self.root / "etc/hosts", self.root / "jail/one/etc/hosts"
        self.devices: frozenset[int] = frozenset()
        self.owners = OWNERS
        self.read = 0
        grow(self.root, {"/etc/hosts": NOW, "/jail/one/etc/hosts": NOW})

    def pairs(self, now: float | None = None) -> Pairs:
        """What is known when a run begins at ``now``."""
        began = time.time() + SETTLED + 5 if now is None else now
        return Pairs(str(self.state), "/", self.owners, began, self.devices)

    def check(
        self, rules: tuple[Rule, ...] = (RULE,), *, now: float | None = None, whole: bool = True
    ) -> dict[str, str]:
        """What a run finds; ``read`` counts the copies that it compared."""
        pairs = self.pairs(now)
        with (
            task(self.root, rules, [instance()]) as (work, _),
            mock.patch("chrootsync.root.contents._open", wraps=contents._open) as opened,
        ):
            found: tuple[InstanceReport, ...] = check(replace(work, trust=pairs))
        pairs.save(whole=whole)
        self.read = opened.call_count
        return kinds(found)

    def kept(self) -> list[Path]:
        """The files of the state."""
        return sorted(self.state.iterdir()) if self.state.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def known(place: Place) -> Place:
    """A place whose pair was compared, and is known."""
    assert place.check() == {}
    assert place.read == 1
    return place


def test_what_was_compared_is_not_read_again(known: Place) -> None:
    assert known.check() == {}
    assert known.read == 0
    assert known.check() == {}  # nor after a run that read nothing
    assert known.read == 0


def test_without_a_former_comparison_bytes_are_compared(place: Place) -> None:
    place.copy.write_bytes(LATER)
    assert place.check() == {"/etc/hosts": "differs"}
    assert place.check() == {"/etc/hosts": "differs"}
    assert place.read == 1


def _as_before(path: Path, change: Callable[[Path], object]) -> None:
    """Make a change that leaves size and mtime as they were, as far as anybody can."""
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _swap(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(LATER)
    other.rename(path)


@pytest.mark.parametrize("side", ["source", "copy"])
@pytest.mark.parametrize("change", [lambda path: path.write_bytes(LATER), _swap], ids=["written", "replaced"])
def test_a_change_that_sets_the_time_back_is_found(known: Place, side: str, change: Callable[[Path], object]) -> None:
    _as_before(getattr(known, side), change)
    assert known.check() == {"/etc/hosts": "differs"}


def test_a_directory_that_was_put_in_place_of_another_is_found(known: Place) -> None:
    old = known.root / "jail/one/old"
    grow(known.root, {"/jail/one/old/hosts": LATER})
    assert known.check() == {}  # time passes: all of it is old by now
    (known.root / "jail/one/etc").rename(known.root / "jail/one/etc.gone")
    old.rename(known.root / "jail/one/etc")
    assert known.check() == {"/etc/hosts": "differs"}


def test_metadata_is_compared_all_the_same(known: Place) -> None:
    known.copy.chmod(0o600)
    assert known.check() == {"/etc/hosts": "metadata"}
    known.copy.chmod(0o644)
    assert known.check(rules=(replace(RULE, mode=0o640),)) == {"/etc/hosts": "metadata"}


def test_an_acl_that_is_given_later_is_found(known: Place) -> None:
    set_acl(known.copy, "-m", "u:1234:r")
    assert known.check() == {"/etc/hosts": "metadata"}


def test_a_source_whose_acl_takes_something_away_is_never_noted(place: Place) -> None:
    set_acl(place.source, "-m", "u:1234:-")
    place.copy.chmod(0o600)
    for _ in range(2):
        assert place.check() == {}
        assert place.read == 1


def test_what_was_changed_just_now_is_read_until_it_is_left_alone(place: Place) -> None:
    for _ in range(2):
        assert place.check(now=time.time()) == {}
        assert place.read == 1
    assert place.kept() == []


def test_what_seems_to_be_of_the_future_is_read(place: Place) -> None:
    """As after a clock was stepped back: what is changed next may get a time that was there before."""
    for _ in range(2):
        place.check(now=time.time() - 86400)
        assert place.read == 1


def test_a_clock_that_was_stepped_hides_no_change(known: Place) -> None:
    known.copy.write_bytes(LATER)
    for now in (0.0, time.time() - 86400, time.time() + 86400):
        assert known.check(now=now) == {"/etc/hosts": "differs"}


@pytest.mark.parametrize("side", ["source", "copy"])
def test_what_others_can_write_to_is_never_noted(place: Place, side: str) -> None:
    getattr(place, side).chmod(0o664)
    for _ in range(2):
        place.check()
        assert place.read == 1


@needs_root
@pytest.mark.parametrize("side", ["source", "copy"])
def test_what_belongs_to_somebody_else_is_never_noted(place: Place, side: str) -> None:
    os.chown(getattr(place, side), 1234, 1234)
    for _ in range(2):
        place.check()
        assert place.read == 1


def test_what_has_a_guard_is_always_read(place: Place) -> None:
    guarded = replace(RULE, guard=Guard(matches="localhost"))
    for _ in range(2):
        assert place.check(rules=(guarded,)) == {}
        assert place.read == 1
    assert place.kept() == []


def test_another_file_system_in_the_same_place_is_found() -> None:
    def run() -> None:
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
        place = Place(Path("/mnt"))
        place.check()
        place.check()
        assert place.read == 0
        mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(place.source.parent))
        place.source.write_bytes(NOW)
        assert place.check() == {}
        assert place.read == 1

    with_private_mounts(run)


def test_only_what_lies_on_some_devices_is_noted(place: Place) -> None:
    device = place.source.stat().st_dev
    for devices, read in ((frozenset({device + 1}), 1), (frozenset({device}), 0)):
        place.devices = devices
        place.check()
        place.check()
        assert place.read == read


def test_what_a_run_of_some_instances_has_not_seen_stays_known(known: Place) -> None:
    (kept,) = known.kept()
    before = kept.read_bytes()
    assert known.check(rules=(rule(files=("/etc/none",), optional=True),), whole=False) == {}
    assert kept.read_bytes() == before
    assert known.check(rules=(rule(files=("/etc/none",), optional=True),)) == {}
    assert kept.read_bytes() == MAGIC


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x" * (len(MAGIC) + SIZE)),
        lambda path: path.write_bytes(MAGIC + bytes(SIZE)),
        _cut,
        _link,
        lambda path: path.parent.chmod(0o777),
    ],
    ids=["lost", "empty", "another format", "zeros", "cut", "a link", "others can write there"],
)
def test_what_is_kept_and_cannot_be_believed_is_not(known: Place, damage: Callable[[Path], object]) -> None:
    (kept,) = known.kept()
    damage(kept)
    assert known.check() == {}
    assert known.read == 1


def test_a_state_that_cannot_be_written_is_no_error(place: Place) -> None:
    place.state.write_text("a file in its place")
    assert place.check() == {}
    assert place.read == 1


def test_what_is_kept_is_for_root_alone(known: Place) -> None:
    (kept,) = known.kept()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert known.state.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_size == len(MAGIC) + SIZE
