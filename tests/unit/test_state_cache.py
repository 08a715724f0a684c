"""Small JSON files can be lost at any time, and are believed only where nobody else could have written them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chrootsync.state import Store
from tests.unit.machine import STRANGER, descriptors, needs_root, needs_user


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
    assert store.get("x", "1") is None


def test_asking_makes_nothing(store: Store, directory: Path) -> None:
    assert store.get("x", "1") is None
    assert not directory.exists()


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
    (directory / "cache-x.json").write_bytes(text)
    assert store.get("x", "1") is None
    store.put("x", "1", "value")
    assert store.get("x", "1") == "value"


@given(text=st.binary(max_size=200))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-bytes"
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "cache-x.json").write_bytes(text)
    store = Store(os.fspath(directory))
    assert store.get("x", "no such fingerprint") is None


# --- Directories that cannot be trusted or written -----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_what_others_could_have_written_is_not_believed(store: Store, directory: Path, mode: int) -> None:
    store.put("x", "1", "value")
    directory.chmod(mode)
    before = {path: path.read_bytes() for path in directory.iterdir()}
    assert store.get("x", "1") is None
    store.put("x", "1", "new")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


@needs_root
def test_a_directory_of_somebody_else_is_not_believed(store: Store, directory: Path) -> None:
    store.put("x", "1", "value")
    os.chown(directory, STRANGER, 0)
    assert store.get("x", "1") is None


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


@needs_user
def test_a_directory_without_the_right_to_write(store: Store, directory: Path) -> None:
    store.put("x", "1", "value")
    directory.chmod(0o500)
    store.put("x", "1", "new")
    assert store.get("x", "1") == "value"


@pytest.mark.parametrize(
    ("put", "step"),
    [
        (Store.put, "open"),
        (Store.put, "replace"),
        (Store.put_on_disk, "open"),
        (Store.put_on_disk, "fsync"),
        (Store.put_on_disk, "replace"),
    ],
)
def test_a_full_disk_leaves_the_old_value_and_nothing_else(
    store: Store,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[[Store, str, str, object], None],
    step: str,
) -> None:
    put(store, "x", "1", "old")
    before = {path: path.read_bytes() for path in directory.iterdir()}

    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        put(store, "x", "1", "new")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before
    assert descriptors() == opened
    assert store.get("x", "1") == "old"


def test_what_can_be_worked_out_anew_waits_for_no_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)

    store.put("x", "1", "value")
    assert synced == []
    store.put_on_disk("x", "1", "value")
    assert len(synced) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_a_power_cut_left_is_as_good_as_none(store: Store, directory: Path, share: float) -> None:
    store.put("x", "1", {"inputs": ["/etc"] * 50})
    (path,) = directory.iterdir()
    data = path.read_bytes()
    length = int(len(data) * share)

    for rest in (b"", bytes(len(data) - length)):
        path.write_bytes(data[:length] + rest)
        assert store.get("x", "1") is None


def test_a_value_that_is_no_json_leaves_nothing(store: Store, directory: Path) -> None:
    with pytest.raises(TypeError):
        store.put("x", "1", object())
    assert os.listdir(directory) == []
