"""The lock keeps repairs of one root apart, whatever becomes of who holds it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chrootsync.model import ChrootsyncError, Code, LockedError
from chrootsync.state import lock
from chrootsync.state.lock import POLL
from tests.unit.machine import descriptors, needs_user, promptly


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where locks are held: not made yet."""
    return tmp_path / "run"


HOLDER = """
import os, sys, time
from chrootsync.state import lock
with lock(sys.argv[1], "root", 0):
    print("held", flush=True)
    sys.stdin.readline()
print("free", flush=True)
"""


@contextmanager
def holder(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until it is told a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, os.fspath(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_lock_that_another_process_holds(directory: Path) -> None:
    before = descriptors()
    with holder(directory), promptly():
        before_waiting = descriptors()
        with pytest.raises(LockedError) as caught, lock(os.fspath(directory), "root", 0):
            raise AssertionError("two repairs at once")
        assert descriptors() == before_waiting
    assert str(caught.value) == (
        "another repair of this root is under way and did not end within 0 seconds; try again, or wait longer with "
        "--wait"
    )
    assert caught.value.code == Code.LOCKED
    assert descriptors() == before


def test_waiting_for_a_lock_has_an_end(directory: Path) -> None:
    late = pytest.raises(LockedError, match=r"did not end within 0\.15 seconds")
    with holder(directory), promptly(), late, lock(os.fspath(directory), "root", 0.15):
        raise AssertionError("two repairs at once")


def test_whoever_waits_gets_the_lock_when_it_is_free(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with holder(directory) as process, promptly():
        looks: list[float] = []

        def sleep(seconds: float) -> None:
            looks.append(seconds)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"let go\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"free\n"

        monkeypatch.setattr(time, "sleep", sleep)
        with lock(os.fspath(directory), "root", 60):
            assert looks == [POLL]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_holder_leaves_no_lock(directory: Path, number: signal.Signals) -> None:
    with holder(directory) as process, promptly():
        process.send_signal(number)
        process.wait()
        with lock(os.fspath(directory), "root", 0):
            assert os.listdir(directory) == ["root"]


def test_a_lock_is_free_again_after_an_error(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock(os.fspath(directory), "root", 0):
        raise ZeroDivisionError
    with lock(os.fspath(directory), "root", 0):
        pass


def test_an_os_error_of_the_repair_is_not_taken_for_the_locks(directory: Path) -> None:
    with pytest.raises(FileNotFoundError), lock(os.fspath(directory), "root", 0):
        raise FileNotFoundError


def test_locks_of_different_roots_do_not_meet(directory: Path) -> None:
    with lock(os.fspath(directory), "8-1", 0), lock(os.fspath(directory), "8-2", 0):
        assert sorted(path.name for path in directory.iterdir()) == ["8-1", "8-2"]
    assert list(directory.iterdir()) == []


def test_children_do_not_keep_the_lock(directory: Path) -> None:
    with lock(os.fspath(directory), "root", 0):
        child = subprocess.Popen(["/bin/sleep", "60"], close_fds=False)
    try:
        with lock(os.fspath(directory), "root", 0):
            assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_the_lock_is_nobody_elses_to_take(directory: Path) -> None:
    umask = os.umask(0)
    try:
        with lock(os.fspath(directory), "root", 0):
            assert directory.stat().st_mode & 0o777 == 0o700
            assert (directory / "root").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(umask)


def no_lock(directory: Path) -> str:
    before = descriptors()
    with pytest.raises(ChrootsyncError) as caught, lock(os.fspath(directory), "root", 0):
        raise AssertionError("no lock is held")
    assert caught.value.code == Code.FAILED
    assert not isinstance(caught.value, LockedError)
    assert descriptors() == before
    return str(caught.value)


def test_a_directory_that_others_can_write_holds_no_lock(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: others can write there; repair as root"
    assert os.listdir(directory) == []


def test_a_lock_that_is_a_link_is_not_followed(directory: Path, tmp_path: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "root").symlink_to(tmp_path / "victim")
    reason = "too many levels of symbolic links (one of them leads back to itself; mend it)"
    expected = f"{directory}: cannot hold a lock there: {reason}"
    assert no_lock(directory) == expected
    assert not (tmp_path / "victim").exists()


def test_a_lock_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    directory = tmp_path / "file/run"
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: not a directory"


@needs_user
def test_without_rights_there_is_no_lock(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    directory = tmp_path / "run"
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: permission denied; repair as root"
    tmp_path.chmod(0o700)


def test_a_file_system_without_locks_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: no locks available"
