"""Contents that were replaced are kept whole, for root alone, under a quota, and until nothing refers to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chrootsync.model import Identity, State, UnreadableError
from chrootsync.state.database import Database
from tests.unit.machine import descriptors, mount, needs_root, promptly, with_private_mounts
from tests.unit.test_state_database import FILE, NOW, change, opened, repaired, step
from tests.unit.test_state_opening import filler


@dataclass
class Place:
    """A copy with contents; ``meanwhile`` happens after it was opened."""

    file: Path
    path: str = "/etc/resolv.conf"
    meanwhile: Callable[[], None] | None = None
    state: State | None = None
    identity: Identity | None = None

    def vouch(self) -> None:
        """Nobody asks what a copy has beyond its mode."""

    def open(self) -> int:
        try:
            fd = os.open(self.file, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise UnreadableError(self.path, os.strerror(error.errno or 0)) from None
        if self.meanwhile is not None:
            self.meanwhile()
        return fd

    def contents(self, limit: int) -> bytes:
        return self.file.read_bytes()[:limit]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[bytes], Place]:
    """Makes copies; those that were made before stay what they were."""

    def make(contents: bytes) -> Place:
        number = len(list(tmp_path.glob("copy-*")))
        (tmp_path / f"copy-{number}").write_bytes(contents)
        return Place(tmp_path / f"copy-{number}", path=f"/etc/{number}")

    return make


Make = Callable[[bytes], Place]


def files(directory: Path) -> dict[str, bytes]:
    return {
        os.fspath(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("kept/**/*")
        if path.is_file()
    }


def digest(contents: bytes) -> str:
    return sha256(contents).hexdigest()


def keeps(database: Database, place: Place, *, began: float = NOW) -> str | None:
    """A repair that keeps what it replaces; the checksum."""
    journal = database.begin(began=began, trigger="t", version="1")
    told = change(place.path)
    journal.plan([step(told)])
    found = journal.keep(place)
    before = replace(FILE, sha256=found)
    journal.settle([replace(told, before=before, kept=found is not None)])
    return found


@pytest.mark.parametrize("size", [0, 1, 4096, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 300_001])
def test_contents_are_kept_as_they_were(directory: Path, copy: Make, size: int) -> None:
    contents = bytes(number * number % 251 for number in range(size))
    before = descriptors()
    with opened(directory) as database:
        found = keeps(database, copy(contents))
        assert found == digest(contents)
        path = database.kept(found)
        assert path == f"{directory}/kept/{found[:2]}/{found}"
        assert database.notes == []
    with opened(directory, write=False) as database:
        assert database.kept(found) == path
    assert files(directory) == {f"kept/{found[:2]}/{found}": contents}
    assert descriptors() == before


def test_they_are_private_whatever_the_umask(directory: Path, copy: Make) -> None:
    umask = os.umask(0)
    try:
        with opened(directory) as database:
            found = keeps(database, copy(b"secret"))
    finally:
        os.umask(umask)
    assert found is not None
    assert (directory / "kept").stat().st_mode & 0o777 == 0o700
    assert (directory / "kept" / found[:2]).stat().st_mode & 0o777 == 0o700
    assert (directory / "kept" / found[:2] / found).stat().st_mode & 0o777 == 0o600


def test_the_same_contents_are_kept_once(directory: Path, copy: Make) -> None:
    with opened(directory) as database:
        found = keeps(database, copy(b"same"))
        assert found is not None
        path = directory / "kept" / found[:2] / found
        os.utime(path, (1, 1))
        inode = path.stat().st_ino
        assert keeps(database, copy(b"same")) == found
    with opened(directory) as database:
        assert keeps(database, copy(b"same")) == found
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > 1, "it is as new as what refers to it"


def test_what_is_shorter_than_it_was_is_kept_anew(directory: Path, copy: Make) -> None:
    with opened(directory) as database:
        found = keeps(database, copy(b"contents"))
        assert found is not None
        path = directory / "kept" / found[:2] / found
        path.write_bytes(b"cont")
        assert database.kept(found) is None
        assert keeps(database, copy(b"contents")) == found
        assert database.kept(found) == os.fspath(path)


@pytest.mark.parametrize("harm", ["gone", "other", "longer", "link", "directory", "fifo"])
def test_what_is_not_what_it_was_is_not_given(directory: Path, copy: Make, tmp_path: Path, harm: str) -> None:
    with opened(directory) as database:
        found = keeps(database, copy(b"contents"))
        assert found is not None
        path = directory / "kept" / found[:2] / found
        path.unlink()
        if harm == "other":
            path.write_bytes(b"contentz")
        elif harm == "longer":
            path.write_bytes(b"contents and more")
        elif harm == "link":
            (tmp_path / "real").write_bytes(b"contents")
            path.symlink_to(tmp_path / "real")
        elif harm == "directory":
            path.mkdir()
        elif harm == "fifo":
            os.mkfifo(path)
        with promptly():
            assert database.kept(found) is None


@pytest.mark.parametrize(
    "name", ["", "x", "../state.db", "/etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", "\0" * 64]
)
def test_what_is_no_checksum_leads_nowhere(directory: Path, name: str) -> None:
    with opened(directory) as database:
        assert database.kept(name) is None


# --- What is not kept ---------------------------------------------------------------------------------------------


def test_without_memory_nothing_is_kept(directory: Path, copy: Make) -> None:
    with opened(None) as database:
        assert keeps(database, copy(b"x")) is None
        assert database.keep(copy(b"x")) is None
    with opened(directory, write=False) as database:
        assert database.keep(copy(b"x")) is None
    assert not directory.exists()


def test_what_cannot_be_read_is_told_once(directory: Path, copy: Make, tmp_path: Path) -> None:
    gone, pipe = Place(tmp_path / "gone"), Place(tmp_path / "fifo", path="/etc/fifo")
    os.mkfifo(pipe.file)
    with opened(directory) as database, promptly():
        for _ in range(2):
            assert database.keep(gone) is None
            assert database.keep(pipe) is None
        lost = "of a chroot: what was replaced could not be kept for a rollback"
        assert database.notes == [
            f"/etc/resolv.conf {lost}: No such file or directory",
            f"/etc/fifo {lost}: it is not a regular file",
        ]
        assert keeps(database, copy(b"fine")) is not None


@pytest.mark.parametrize("size", [3, 12])
def test_what_changes_while_it_is_read_is_not_kept(directory: Path, copy: Make, size: int) -> None:
    place = copy(b"contents")
    seen: list[int] = []

    def pread(fd: int, length: int, offset: int) -> bytes:
        seen.append(length)
        place.file.write_bytes(b"x" * size)
        return original(fd, length, offset)

    original = os.pread
    with opened(directory) as database:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pread", pread)
            assert database.keep(place) is None
        assert database.notes == [
            "/etc/0 of a chroot: what was replaced could not be kept for a rollback: it changed while it was read"
        ]
        assert seen
    assert files(directory) == {}


def test_what_changes_between_two_readings_is_kept_as_it_was_last(directory: Path, copy: Make) -> None:
    place = copy(b"contents")
    original = os.pread

    def pread(fd: int, length: int, offset: int) -> bytes:
        found = original(fd, length, offset)
        if not found:
            place.file.write_bytes(b"CONTENTS")
        return found

    with opened(directory) as database:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pread", pread)
            found = database.keep(place)
        assert found == digest(b"CONTENTS")
        assert database.kept(found) is not None
    assert list(files(directory).values()) == [b"CONTENTS"]


@pytest.mark.parametrize("step_", ["fsync", "rename", "mkdir", "write"])
def test_an_error_leaves_nothing(directory: Path, copy: Make, monkeypatch: pytest.MonkeyPatch, step_: str) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(directory) as database:
        before = descriptors()
        with monkeypatch.context() as patch:
            patch.setattr(os, step_, full)
            place = copy(b"x") if step_ != "write" else Place(Path("/etc/os-release"))
            for _ in range(2):
                assert database.keep(place) is None
        assert database.notes == [
            f"{place.path} of a chroot: what was replaced could not be kept for a rollback: no space left on device"
        ]
        assert files(directory) == {}
        assert descriptors() == before
        assert database.keep(copy(b"x")) == digest(b"x")


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_where_others_could_have_written_nothing_is_kept_or_believed(directory: Path, copy: Make, mode: int) -> None:
    with opened(directory) as database:
        found = keeps(database, copy(b"x"))
        assert found is not None
        (directory / "kept").chmod(mode)
        assert database.kept(found) is None
        assert database.keep(copy(b"y")) is None
        assert len(database.notes) == 1
    assert len(files(directory)) == 1


@needs_root
def test_a_full_disk(tmp_path: Path, copy: Make) -> None:
    place = tmp_path / "full"
    place.mkdir(mode=0o700)
    large = copy(bytes(range(256)) * 1000)

    def check() -> None:
        mount("-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", place)
        with opened(place) as database:
            journal = database.begin(began=NOW, trigger="t", version="1")
            journal.plan([step(change())])
            with suppress(OSError):
                (place / "filler").write_bytes(bytes(200 << 10))
            assert journal.keep(large) is None
            assert database.notes == [
                "/etc/0 of a chroot: what was replaced could not be kept for a rollback: no space left on device"
            ]
            assert files(place) == {}
            filler(place)
            assert journal.keep(large) is None

    with_private_mounts(check)


# --- The quota ----------------------------------------------------------------------------------------------------


def total(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("kept/**/*") if path.is_file())


def test_the_quota_is_never_exceeded_and_the_oldest_go_first(directory: Path, copy: Make) -> None:
    found = []
    for number in range(6):
        with opened(directory, quota=1000) as database:
            found.append(keeps(database, copy(bytes([number]) * 300)))
            assert database.notes == []
        assert total(directory) <= 1000
        age(directory)
    assert None not in found
    with opened(directory, write=False) as database:
        assert [one is not None and database.kept(one) is not None for one in found] == [False] * 3 + [True] * 3
        assert all(repair.changes[0].kept for repair in database.repairs(10)), "what was done stays what it was"


def age(directory: Path) -> None:
    """Let every file be a minute older."""
    for path in directory.rglob("kept/**/*"):
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 60 * 10**9))


def test_what_this_run_has_kept_does_not_go(directory: Path, copy: Make) -> None:
    with opened(directory, quota=1000) as database:
        old = keeps(database, copy(b"o" * 500))
    age(directory)
    with opened(directory, quota=1000) as database:
        mine = [database.keep(copy(bytes([number]) * 400)) for number in range(3)]
        assert mine[2] is None
        reason = "this run has already kept almost all of the 1000 bytes that it may"
        assert database.notes == [f"/etc/3 of a chroot: what was replaced could not be kept for a rollback: {reason}"]
        assert old is not None
        assert database.kept(old) is None
        for one in mine[:2]:
            assert one is not None
            assert database.kept(one) is not None
        assert database.keep(copy(b"x" * 200)) is not None, "something smaller still fits"
    assert total(directory) == 1000


def test_what_is_larger_than_the_quota_displaces_nothing(directory: Path, copy: Make) -> None:
    with opened(directory, quota=1000) as database:
        keeps(database, copy(b"x" * 1000))
    with opened(directory, quota=1000) as database:
        assert database.keep(copy(b"y" * 1001)) is None
        (note,) = database.notes
        reason = "it is larger than the 1000 bytes that all kept contents may have"
        assert note == f"/etc/1 of a chroot: what was replaced could not be kept for a rollback: {reason}"
    assert total(directory) == 1000


def test_a_smaller_quota_takes_effect_with_the_next_contents(directory: Path, copy: Make) -> None:
    with opened(directory, quota=1000) as database:
        for number in range(5):
            keeps(database, copy(bytes([number]) * 200))
    with opened(directory, quota=300) as database:
        assert keeps(database, copy(b"x" * 200)) is not None
    assert total(directory) == 200


def test_contents_that_are_kept_already_need_no_room(directory: Path, copy: Make) -> None:
    with opened(directory, quota=1000) as database:
        first, second = keeps(database, copy(b"x" * 500)), keeps(database, copy(b"y" * 500))
    with opened(directory, quota=1000) as database:
        assert keeps(database, copy(b"y" * 500)) == second
        assert first is not None
        assert database.kept(first) is not None


def test_what_was_never_finished_counts_and_goes_first(directory: Path, copy: Make) -> None:
    with opened(directory, quota=1000) as database:
        keeps(database, copy(b"x" * 300))
    (directory / "kept/new-abc").write_bytes(b"n" * 600)
    os.utime(directory / "kept/new-abc", (1, 1))
    with opened(directory, quota=1000) as database:
        keeps(database, copy(b"y" * 300))
    assert not (directory / "kept/new-abc").exists()
    assert total(directory) == 600


# --- Pruning ------------------------------------------------------------------------------------------------------


def test_contents_go_with_the_last_change_that_refers_to_them(directory: Path, copy: Make) -> None:
    with opened(directory) as database:
        old = keeps(database, copy(b"old"), began=NOW - 40 * 86400)
        both = keeps(database, copy(b"both"), began=NOW - 40 * 86400)
        keeps(database, copy(b"both"))
        new = keeps(database, copy(b"new"))
        database.keep(copy(b"of no use"))
        (directory / "kept/new-abc").write_bytes(b"x")
        (directory / "kept/README").write_bytes(b"by hand")
        (directory / "kept/ab").mkdir(exist_ok=True)
        (directory / "kept/ab/note").write_bytes(b"by hand")
        (directory / "kept" / ("ab" * 32)).mkdir()
        database.prune(days=30, repairs=200, now=NOW)
        assert [one is not None and database.kept(one) is not None for one in (old, both, new)] == [False, True, True]
        assert sorted(files(directory).values()) == [b"both", b"by hand", b"by hand", b"new"]
        assert keeps(database, copy(b"old")) == old
        assert database.notes == []


def test_contents_that_an_unfinished_plan_refers_to_stay(directory: Path, copy: Make) -> None:
    with opened(directory) as database:
        journal = database.begin(began=NOW - 7200, trigger="t", version="1")
        told = change()
        journal.plan([step(told)])
        found = journal.keep(copy(b"contents"))
        assert found is not None
        journal.intend([step(replace(told, before=replace(FILE, sha256=found), kept=True))])
    with opened(directory) as database:
        database.prune(days=0, repairs=0, now=NOW)
        assert database.kept(found) is not None
        (unfinished,) = database.unfinished()
        assert unfinished.steps[0].change.kept


def test_while_a_plan_is_being_carried_out_no_contents_go(directory: Path, copy: Make) -> None:
    """A run on another root may have kept what it has not yet told the database."""
    with opened(directory, root="/srv/image") as other, opened(directory) as database:
        journal = other.begin(began=NOW - 5, trigger="t", version="1")
        journal.plan([step(change())])
        found = journal.keep(copy(b"contents"))
        assert found is not None
        database.prune(days=30, repairs=200, now=NOW)
        assert database.kept(found) is not None
        journal.settle([])
        database.prune(days=30, repairs=200, now=NOW)
        assert database.kept(found) is None


def test_pruning_without_kept_contents(directory: Path) -> None:
    with opened(directory) as database:
        repaired(database, change())
        database.prune(days=30, repairs=200, now=NOW)
        assert database.notes == []
    assert sorted(os.listdir(directory)) == ["cache-places.json", "state.db"]


def test_recovery_can_keep_contents(directory: Path, copy: Make) -> None:
    with opened(directory) as database:
        database.begin(began=NOW, trigger="t", version="1").plan([step(change())])
    with opened(directory) as database:
        (unfinished,) = database.unfinished()
        found = database.keep(copy(b"old contents"))
        assert found is not None
        done = replace(change(), before=replace(FILE, sha256=found), kept=True)
        database.recovered(unfinished, [done])
        database.prune(days=30, repairs=200, now=NOW)
        assert database.kept(found) is not None
        assert database.repairs(1)[0].changes == (done,)
