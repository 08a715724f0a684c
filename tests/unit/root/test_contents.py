"""Reading and comparing what is in files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chrootsync.model import AbsentError, Kind, Problem, UnreadableError, UnsafeError
from chrootsync.root import contents
from chrootsync.root.contents import CHUNK, TOGETHER, Opener, same
from chrootsync.root.pool import failure
from tests.unit.machine import descriptors, descriptors_left

READING_FAILED = Problem(kind=Kind.UNREADABLE, reason="reading the copy failed")


def opener(path: Path) -> Opener:
    return lambda: os.open(path, os.O_RDONLY)


def failing(error: Exception) -> Opener:
    def open_copy() -> int:
        raise error

    return open_copy


class Files:
    """A source and its copies in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.source = directory / "source"
        self.count = 0

    def copy(self, data: bytes) -> Opener:
        self.count += 1
        path = self.directory / f"copy{self.count}"
        path.write_bytes(data)
        return opener(path)

    def compare(self, data: bytes, *openers: Opener) -> list[bool | Problem]:
        self.source.write_bytes(data)
        with self.source.open("rb") as file:
            return list(same(file.fileno(), openers))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    before = descriptors()
    yield Files(tmp_path)
    assert descriptors() == before  # nothing stays open, whatever happens


class Reads(Counter[int]):
    """The positions that a descriptor was read at, by os.pread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        real = os.pread

        def counted(fd: int, size: int, position: int) -> bytes:
            self[position] += 1
            return real(fd, size, position)

        monkeypatch.setattr(os, "pread", counted)


SIZES = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]


@pytest.mark.parametrize("size", [0, *SIZES])
def test_equal_contents_are_the_same(files: Files, size: int) -> None:
    data = os.urandom(size)
    assert files.compare(data, files.copy(data), files.copy(data)) == [True, True]
    assert list(same(data, [files.copy(data)])) == [True]


@pytest.mark.parametrize("size", SIZES)
def test_one_byte_tells_wherever_it_is(files: Files, size: int) -> None:
    data = bytes(size)
    for place in {0, size // 2, size - 1, min(CHUNK, size) - 1, size - size % CHUNK if size % CHUNK else 0}:
        other = bytearray(data)
        other[place] = 1
        assert files.compare(data, files.copy(bytes(other)), files.copy(data)) == [False, True]
        assert list(same(data, [files.copy(bytes(other)), files.copy(data)])) == [False, True]


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_that_is_shorter_or_longer_is_not_the_same(files: Files, size: int) -> None:
    data = os.urandom(size)
    copies = [files.copy(data[:-1]), files.copy(data + b"\0"), files.copy(b""), files.copy(data)]
    assert files.compare(data, *copies) == [False, False, False, True]
    assert list(same(data, copies)) == [False, False, False, True]


def test_what_is_there_differs_from_nothing(files: Files) -> None:
    assert files.compare(b"", files.copy(b"x")) == [False]
    assert list(same(b"", [files.copy(b"x"), files.copy(b"")])) == [False, True]


@pytest.mark.parametrize(("change", "expected"), [("grow", False), ("shrink", False), ("none", True)])
def test_a_copy_that_changes_its_size_while_it_is_read(files: Files, change: str, expected: bool) -> None:
    data = os.urandom(CHUNK + 5)
    open_copy = files.copy(data)

    def open_and_change() -> int:
        fd = open_copy()
        if change != "none":
            os.truncate(files.directory / "copy1", len(data) + (1 if change == "grow" else -1))
        return fd

    assert files.compare(data, open_and_change, files.copy(data)) == [expected, True]


def test_a_source_is_read_once_for_all_copies_of_a_group(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(2 * CHUNK + 1)
    reads = Reads(monkeypatch)
    assert files.compare(data, *[files.copy(data) for _ in range(20)]) == [True] * 20
    assert reads == {0: 1, CHUNK: 1, 2 * CHUNK: 1}  # the last one saw the end, too


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1])
def test_what_fits_into_a_chunk_needs_one_copy_open_at_a_time(
    files: Files, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = os.urandom(size)
    reads = Reads(monkeypatch)
    copies = [checked(files.copy(data)) for _ in range(5)]
    files.source.write_bytes(data)
    with files.source.open("rb") as file, descriptors_left(1):
        assert list(same(file.fileno(), copies)) == [True] * 5
    assert reads == {0: 1}


def test_a_source_that_tells_another_size_than_it_has_is_read_to_its_end(files: Files) -> None:
    with Path("/proc/self/stat").open("rb") as file:
        assert list(same(file.fileno(), [files.copy(b"")])) == [False]


def test_a_source_is_read_once_more_for_each_further_group(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "TOGETHER", 3)
    reads = Reads(monkeypatch)
    copies = [files.copy(b"old" if number == 4 else b"new") for number in range(7)]
    assert files.compare(b"new", *copies) == [True, True, True, True, False, True, True]
    assert reads[0] == 3


def test_more_copies_than_are_opened_together(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    copies = [files.copy(b"x" if number in (0, TOGETHER) else b"y") for number in range(TOGETHER + 2)]
    results = files.compare(b"y", *copies)
    assert [number for number, result in enumerate(results) if result is False] == [0, TOGETHER]
    assert reads[0] == 2


def test_groups_are_compared_as_they_are_asked_for(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "TOGETHER", 1)
    results = same(b"x", [files.copy(b"x"), failing(AssertionError("opened too early"))])
    assert next(results) is True


def test_no_copies_need_no_reading(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(monkeypatch)
    assert files.compare(b"data") == []
    assert not reads


def test_a_source_is_read_no_further_than_some_copy_is_like_it(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(10 * CHUNK)
    reads = Reads(monkeypatch)
    assert files.compare(data, files.copy(b"x" + data[1:]), files.copy(b"y" + data[1:])) == [False, False]
    assert reads == {0: 1}


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (UnreadableError("/x", "permission denied"), Kind.UNREADABLE, "permission denied"),
        (AbsentError("/x", "does not exist"), Kind.UNREADABLE, "does not exist"),
        (UnsafeError("/x", "belongs to user 7"), Kind.UNSAFE, "belongs to user 7"),
    ],
)
def test_a_copy_that_cannot_be_opened_is_a_problem_of_its_own(
    files: Files, error: Exception, kind: Kind, reason: str
) -> None:
    found = files.compare(b"x", files.copy(b"x"), failing(error), files.copy(b"y"))
    assert found == [True, Problem(kind=kind, reason=reason), False]


def test_a_copy_that_cannot_be_read_is_a_problem_of_its_own(files: Files) -> None:
    directory = opener(files.directory)
    assert files.compare(b"x", directory, files.copy(b"x")) == [READING_FAILED, True]
    assert files.compare(b"", directory, files.copy(b"")) == [READING_FAILED, True]


def test_a_source_that_cannot_be_read_is_a_bad_source(files: Files) -> None:
    fd = os.open(files.directory, os.O_RDONLY)
    found = list(same(fd, [files.copy(b"x"), files.copy(b"y")]))
    os.close(fd)
    assert found == [Problem(kind=Kind.BAD_SOURCE, reason="reading the source failed: is a directory")] * 2


def test_a_source_that_changes_once_is_read_again(files: Files) -> None:
    changed: list[bool] = []
    open_copy = files.copy(b"new!")

    def change() -> int:
        if not changed:
            files.source.write_bytes(b"new!")
            changed.append(True)
        return open_copy()

    assert files.compare(b"old", change) == [True]


def test_a_source_that_keeps_changing_is_a_bad_source(files: Files) -> None:
    open_copy = files.copy(b"x")

    def change() -> int:
        with files.source.open("ab") as file:
            file.write(b"x")
        return open_copy()

    expected = Problem(kind=Kind.BAD_SOURCE, reason="the source keeps changing while it is read")
    assert files.compare(b"x", change, files.copy(b"x")) == [expected, expected]


def test_an_interrupt_closes_every_copy(files: Files) -> None:
    with pytest.raises(KeyboardInterrupt):
        files.compare(b"x", files.copy(b"x"), failing(KeyboardInterrupt()))  # type: ignore[arg-type]  # no Exception
    # the fixture sees that nothing is open any more


def checked(open_copy: Opener) -> Opener:
    """As a copy of a chroot is opened."""

    def open_it() -> int:
        try:
            return open_copy()
        except OSError as error:
            raise failure("/x", error) from None

    return open_it


def test_when_descriptors_run_out_the_rest_is_compared_after(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = [checked(files.copy(b"y" if number == 3 else b"x")) for number in range(5)]
    reads = Reads(monkeypatch)
    large = bytes(CHUNK)
    files.source.write_bytes(large)
    larger = [checked(files.copy(bytes(CHUNK - 1) + b"y" if number == 3 else large)) for number in range(5)]
    with files.source.open("rb") as file, descriptors_left(2):
        assert list(same(file.fileno(), larger)) == [True, True, True, False, True]
    assert reads[0] == 3
    with descriptors_left(1):
        assert list(same(b"x", copies)) == [True, True, True, False, True]


def test_a_problem_beside_exhaustion_keeps_its_place(files: Files) -> None:
    gone = Problem(kind=Kind.UNREADABLE, reason="does not exist")
    copies = [checked(files.copy(b"x")) for _ in range(3)]
    with descriptors_left(1):
        found = list(same(b"x", [copies[0], failing(AbsentError("/x", "does not exist")), *copies[1:]]))
    assert found == [True, gone, True, True]


def test_without_any_descriptor_copies_are_unreadable(files: Files) -> None:
    copies = [checked(files.copy(b"x")) for _ in range(2)]
    with descriptors_left(0):
        found = list(same(b"x", copies))
    assert (
        found
        == [
            Problem(
                kind=Kind.UNREADABLE,
                reason="too many open files (raise the limit: ulimit -n, or LimitNOFILE= of the unit)",
            )
        ]
        * 2
    )


def test_a_source_whose_status_cannot_be_had_is_a_bad_source(files: Files) -> None:
    closed = os.open("/", os.O_PATH)
    os.close(closed)
    reason = "reading the source failed: bad file descriptor"
    assert list(same(closed, [files.copy(b"x")])) == [Problem(kind=Kind.BAD_SOURCE, reason=reason)]


SMALL = st.binary(max_size=3 * 8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(source=SMALL, copies=st.lists(SMALL, max_size=9), at_hand=st.booleans())
def test_same_is_equality(
    files: Files, monkeypatch: pytest.MonkeyPatch, source: bytes, copies: list[bytes], at_hand: bool
) -> None:
    monkeypatch.setattr(contents, "CHUNK", 8)
    monkeypatch.setattr(contents, "TOGETHER", 4)
    files.count = 0
    openers = [files.copy(copy) for copy in copies]
    found = list(same(source, openers)) if at_hand else files.compare(source, *openers)
    assert found == [copy == source for copy in copies]


@pytest.mark.parametrize(
    "data", [b"", b"x", bytes(CHUNK), os.urandom(2 * CHUNK + 3)], ids=["empty", "one", "zeros", "anything"]
)
def test_checksums_are_sha256(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    with (tmp_path / "x").open("rb") as file:
        file.seek(1)  # where the descriptor stands does not matter
        assert contents.sha256(file.fileno()) == expected
    assert contents.sha256_of(data) == expected


@pytest.mark.parametrize("limit", [0, 1, CHUNK, CHUNK + 1, 5 * CHUNK])
def test_no_more_is_read_than_asked_for(tmp_path: Path, limit: int) -> None:
    data = os.urandom(2 * CHUNK)
    (tmp_path / "x").write_bytes(data)
    with (tmp_path / "x").open("rb") as file:
        assert b"".join(contents.chunks(file.fileno(), limit)) == data[:limit]


def test_short_reads_are_put_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abcdefg")
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 3)))
    with (tmp_path / "x").open("rb") as file:
        assert contents.read_fully(file.fileno(), 5) == b"abcde"
        assert contents.read_fully(file.fileno(), 5) == b"fg"
        assert contents.read_fully(file.fileno(), 5) == b""


def test_the_identity_tells_every_change(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    seen: set[Any] = {contents.identity(path.stat())}
    path.write_bytes(b"longer")
    seen.add(contents.identity(path.stat()))
    os.utime(path, ns=(0, 1))
    seen.add(contents.identity(path.stat()))
    other = tmp_path / "y"
    other.write_bytes(b"longer")
    os.utime(other, ns=(0, 1))
    other.replace(path)
    seen.add(contents.identity(path.stat()))
    assert len(seen) == 4
