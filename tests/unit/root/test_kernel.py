"""The system calls that Python lacks, with and without the C library's help."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from chrootsync.root import kernel


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    for name in ("a", "b\n\udcff"):
        (tmp_path / name).write_text(name, errors="surrogateescape")
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.fixture(params=["function", "number"])
def libc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A C library with renameat2, and one without."""
    if request.param == "number":
        bare = SimpleNamespace(syscall=ctypes.CDLL(None, use_errno=True).syscall)
        monkeypatch.setattr(kernel, "_libc", lambda: bare)
    return str(request.param)


def read(directory: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY, dir_fd=directory)
    try:
        return os.fsdecode(os.read(fd, 100))
    finally:
        os.close(fd)


@pytest.mark.usefixtures("libc")
def test_two_names_are_exchanged(directory: int) -> None:
    kernel.rename(directory, "a", "b\n\udcff", kernel.EXCHANGE)
    assert read(directory, "a") == "b\n\udcff"
    assert read(directory, "b\n\udcff") == "a"


@pytest.mark.usefixtures("libc")
def test_a_name_that_is_taken_is_not_replaced(directory: int) -> None:
    with pytest.raises(FileExistsError) as caught:
        kernel.rename(directory, "a", "b\n\udcff", kernel.NOREPLACE)
    assert caught.value.filename == "b\n\udcff"
    assert read(directory, "b\n\udcff") == "b\n\udcff"
    kernel.rename(directory, "a", "c", kernel.NOREPLACE)
    assert read(directory, "c") == "a"


@pytest.mark.usefixtures("libc")
def test_what_is_missing_cannot_be_exchanged(directory: int) -> None:
    with pytest.raises(FileNotFoundError):
        kernel.rename(directory, "a", "gone", kernel.EXCHANGE)
    assert read(directory, "a") == "a"


def test_a_machine_of_unknown_numbers_has_no_renameat2(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_libc", SimpleNamespace)
    monkeypatch.setattr(kernel, "NUMBERS", {})
    with pytest.raises(OSError, match="Function not implemented") as caught:
        kernel.rename(directory, "a", "b", kernel.EXCHANGE)
    assert caught.value.errno == errno.ENOSYS
    assert caught.value.errno in kernel.UNSUPPORTED


def test_where_there_are_no_flags_nothing_is_append_only(directory: int) -> None:
    assert kernel.append_only(directory) is False  # an O_PATH descriptor cannot be asked
