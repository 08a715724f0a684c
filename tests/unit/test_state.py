"""What is remembered between runs can be lost at any time, and the lock keeps repairs apart."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync import state
from chrootsync.model import ChrootsyncError, Code, LockedError, Record
from chrootsync.state import Store, lock
from tests.unit.machine import STRANGER, descriptors, needs_root, needs_user, promptly

PENDING = {"postfix": Record(last=1_700_000_000.5, pending=True, restart=True, failures=3)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where state is kept: not made yet."""
    return tmp_path / "state"


@pytest.fixture
def store(directory: Path) -> Store:
    return Store(os.fspath(directory))


# --- Values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "text", ["a", {"b": [1.5, True]}], "\udcff\n\0", {}])
def test_a_value_comes_back_for_the_same_fingerprint(store: Store, value: object) -> None:
    store.put("libraries", "1", value)
    assert store.get("libraries", "1") == value
    assert store.get("libraries", "2") is None
    assert store.get("other", "1") is None


def test_a_later_value_replaces_an_earlier_one(store: Store, directory: Path) -> None:
    store.put("libraries", "1", "old")
    store.put("libraries", "2", "new")
    assert store.get("libraries", "1") is None
    assert store.get("libraries", "2") == "new"
    assert os.listdir(directory) == ["cache-libraries.json"]


def test_files_are_private_whatever_the_umask(store: Store, directory: Path) -> None:
    umask = os.umask(0)
    try:
        store.put("x", "1", None)
        store.remember(PENDING)
    finally:
        os.umask(umask)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a/b", "\0", "x\n", "Ü"])
def test_no_name_leaves_the_directory(store: Store, directory: Path, name: str) -> None:
    store.put(name, "1", "value")
    assert store.get(name, "1") == "value"
    (made,) = directory.iterdir()
    assert made.name.startswith("cache-")
    assert made.name.endswith(".json")
    assert os.listdir(directory.parent) == ["state"]


def test_without_a_directory_nothing_is_kept() -> None:
    store = Store(None)
    store.put("x", "1", "value")
    store.remember(PENDING)
    assert store.get("x", "1") is None
    assert store.reloads() == {}


def test_asking_makes_nothing(store: Store, directory: Path) -> None:
    assert store.get("x", "1") is None
    assert store.reloads() == {}
    store.remember({})
    store.remember({"postfix": Record()})
    assert not directory.exists()


# --- Reloads ------------------------------------------------------------------------------------------------------


def test_reloads_are_remembered(store: Store) -> None:
    store.remember({**PENDING, "postfix-out": Record(last=5.0), "forgotten": Record()})
    assert store.reloads() == {**PENDING, "postfix-out": Record(last=5.0)}
    store.remember({})
    assert store.reloads() == {}


GARBAGE = [
    b"",
    b"garbage",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"7",
    b'"text"',
    b"{",
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b"9" * 5000,
    b"NaN",
    b'{"fingerprint": "2", "value": 1}',
    b'{"postfix": null}',
    b'{"postfix": []}',
    b'{"postfix": {"unknown": 1}}',
    b'{"postfix": {"last": "x"}}',
    b'{"postfix": {"last": [], "failures": {}}}',
    b'{"postfix": {"failures": Infinity}}',
    b'{"postfix": {"failures": 1e999}}',
    b'{"postfix": {"failures": NaN}}',
    b'{"postfix": {"last": 1' + b"0" * 400 + b"}}",
]


@pytest.mark.parametrize("text", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_as_nothing(store: Store, directory: Path, text: bytes) -> None:
    directory.mkdir(mode=0o700)
    for name in ("cache-x.json", "reloads.json"):
        (directory / name).write_bytes(text)
    assert store.get("x", "1") is None
    assert store.reloads() == {}
    store.put("x", "1", "value")
    store.remember(PENDING)
    assert store.get("x", "1") == "value"
    assert store.reloads() == PENDING


def test_what_makes_sense_is_kept_beside_garbage(store: Store, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    reloads = {"broken": 7, "postfix": {"last": 5, "pending": 1, "failures": 99}, "other": {"failures": -3}}
    (directory / "reloads.json").write_text(json.dumps(reloads))
    assert store.reloads() == {"postfix": Record(last=5.0, pending=True, failures=20), "other": Record()}


@given(text=st.binary(max_size=200))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-bytes"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "reloads.json").write_bytes(text)
    (directory / "cache-x.json").write_bytes(text)
    store = Store(os.fspath(directory))
    assert store.get("x", "no such fingerprint") is None
    for record in store.reloads().values():
        assert 0 <= record.failures <= 20


# --- Directories that cannot be trusted or written -----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_what_others_could_have_written_is_not_believed(store: Store, directory: Path, mode: int) -> None:
    store.put("x", "1", "value")
    store.remember(PENDING)
    directory.chmod(mode)
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert store.get("x", "1") is None
    assert store.reloads() == {}
    store.put("x", "1", "new")
    assert_not_remembered(store, directory, "others can write there")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


def assert_not_remembered(store: Store, directory: Path, reason: str) -> None:
    """A pending reload that would be lost is an error; anything else is not."""
    store.remember({"postfix": Record(last=5.0)})
    with pytest.raises(ChrootsyncError) as caught:
        store.remember(PENDING)
    assert str(caught.value) == f"{directory}: cannot keep in mind that a reload is due ({reason}); reload by hand"
    assert caught.value.code == Code.FAILED


@needs_root
def test_a_directory_of_somebody_else_is_not_believed(store: Store, directory: Path) -> None:
    store.put("x", "1", "value")
    os.chown(directory, STRANGER, 0)
    assert store.get("x", "1") is None
    assert_not_remembered(store, directory, "others can write there")


def test_a_link_to_a_directory_is_not_believed(store: Store, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    directory.symlink_to("real")
    store.put("x", "1", "value")
    assert store.get("x", "1") is None
    assert os.listdir(tmp_path / "real") == []


def test_a_file_in_the_place_of_the_directory(store: Store, directory: Path) -> None:
    directory.write_bytes(b"")
    store.put("x", "1", "value")
    assert store.get("x", "1") is None
    assert_not_remembered(store, directory, "File exists")


@needs_user
def test_a_directory_without_the_right_to_write(store: Store, directory: Path) -> None:
    store.put("x", "1", "value")
    directory.chmod(0o500)
    store.put("x", "1", "new")
    assert store.get("x", "1") == "value"
    assert_not_remembered(store, directory, "Permission denied")


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_value_and_nothing_else(
    store: Store, directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store.put("x", "1", "old")
    store.remember(PENDING)
    before = {path: path.read_bytes() for path in directory.iterdir()}

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        store.put("x", "1", "new")
        assert_not_remembered(store, directory, "No space left on device")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    assert descriptors() == opened
    assert store.get("x", "1") == "old"


def test_a_value_that_is_no_json_leaves_nothing(store: Store, directory: Path) -> None:
    with pytest.raises(TypeError):
        store.put("x", "1", object())
    assert os.listdir(directory) == []


# --- The lock -----------------------------------------------------------------------------------------------------

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

        monkeypatch.setattr("chrootsync.state.time.sleep", sleep)
        with lock(os.fspath(directory), "root", 60):
            assert looks == [state.POLL]


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
    expected = f"{directory}: cannot hold a lock there: Too many levels of symbolic links"
    assert no_lock(directory) == expected
    assert not (tmp_path / "victim").exists()


def test_a_lock_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    directory = tmp_path / "file/run"
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: Not a directory"


@needs_user
def test_without_rights_there_is_no_lock(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    directory = tmp_path / "run"
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: Permission denied; repair as root"
    tmp_path.chmod(0o700)


def test_a_file_system_without_locks_says_so(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert no_lock(directory) == f"{directory}: cannot hold a lock there: No locks available"
