"""Files of chrootsync's own on the host's side: whole or not at all, and never by a way that others could lay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chrootsync.model import AbsentError, RepairError, UnsafeError
from chrootsync.root import Root
from chrootsync.root.settings import Found, Settings
from tests.unit.scenery import grow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    grow(tmp_path, {"/etc/conf.d/there": b"old\n", "/etc/link": "conf.d/there", "/etc/fifo": 0o644})
    return tmp_path


@pytest.fixture
def settings(root: Path) -> Iterator[Settings]:
    with closing(Root(str(root))) as opened, Settings(opened) as made:
        yield made


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_file_is_written_with_the_directories_above_it(root: Path, settings: Settings) -> None:
    settings.write("/etc/a/b/file", b"new\n", 0o755)
    assert (root / "etc/a/b/file").read_bytes() == b"new\n"
    assert [(root / path).stat().st_mode & 0o7777 for path in ("etc/a", "etc/a/b", "etc/a/b/file")] == [0o755] * 3


def test_a_file_is_replaced_and_not_written_to(root: Path, settings: Settings) -> None:
    os.link(root / "etc/conf.d/there", root / "other-name")
    settings.write("/etc/conf.d/there", b"new\n", 0o644)
    assert (root / "etc/conf.d/there").read_bytes() == b"new\n"
    assert (root / "other-name").read_bytes() == b"old\n"


def test_what_is_there_is_seen_as_it_is(settings: Settings) -> None:
    assert settings.look("/etc/conf.d/there") == Found(data=b"old\n", mode=0o644)
    assert settings.look("/etc/link") == Found(target="conf.d/there")
    assert settings.look("/etc/fifo") == Found()
    assert settings.look("/etc/conf.d") == Found()
    assert settings.look("/etc/nothing") is None
    assert settings.look("/nowhere/nothing") is None


def test_a_link_is_replaced_and_not_followed(root: Path, settings: Settings) -> None:
    settings.link("/etc/link", "/dev/null")
    assert os.readlink(root / "etc/link") == "/dev/null"
    settings.remove("/etc/link")
    settings.remove("/etc/link")
    assert (root / "etc/conf.d/there").read_bytes() == b"old\n"


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_step_that_fails_leaves_nothing(
    root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = names(root)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(RepairError, match=r"/etc/conf\.d/there: writing it failed: no space left on device"):
        settings.write("/etc/conf.d/there", b"new\n", 0o644)
    assert names(root) == before
    assert (root / "etc/conf.d/there").read_bytes() == b"old\n"


def test_nothing_is_written_where_others_can_write(root: Path, settings: Settings) -> None:
    (root / "etc/conf.d").chmod(0o777)
    with pytest.raises(UnsafeError, match="others can write to this directory"):
        settings.write("/etc/conf.d/there", b"new\n", 0o644)
    with pytest.raises(UnsafeError):
        settings.remove("/etc/conf.d/there")
    assert (root / "etc/conf.d/there").read_bytes() == b"old\n"


def test_a_directory_goes_only_when_it_is_empty(root: Path, settings: Settings) -> None:
    settings.remove_directory("/etc/conf.d")
    assert (root / "etc/conf.d/there").exists()
    settings.remove("/etc/conf.d/there")
    settings.remove_directory("/etc/conf.d")
    settings.remove_directory("/etc/conf.d")
    settings.remove_directory("/nowhere/at/all")
    assert not (root / "etc/conf.d").exists()


def test_what_root_runs_must_be_roots(root: Path, settings: Settings) -> None:
    settings.vet("/etc/conf.d/there")
    settings.vet("/etc/link")
    settings.vet("/etc/conf.d")
    with pytest.raises(AbsentError):
        settings.vet("/etc/nothing")
    (root / "etc/conf.d/there").chmod(0o666)
    for path in ("/etc/conf.d/there", "/etc/link"):
        with pytest.raises(UnsafeError, match=r"/etc/conf\.d/there: others can write to it"):
            settings.vet(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_others_is_not_roots(root: Path, settings: Settings) -> None:
    os.chown(root / "etc/conf.d/there", 1, 1)
    with pytest.raises(UnsafeError, match="belongs to user 1"):
        settings.vet("/etc/conf.d/there")
