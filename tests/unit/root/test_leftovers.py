"""What a killed repair may leave beside a target, in each state, and what clearing up makes of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chrootsync.model import Copy, RepairError
from chrootsync.root import Root
from chrootsync.root.leftovers import Leftover
from chrootsync.root.write import Writer
from tests.unit.scenery import grow

NAME = ".chrootsync-abc-0"
HALF = f"{NAME}-old"


class Scene:
    """A chroot with a target in it, and the inodes that a journal would name."""

    def __init__(self, root: Path) -> None:
        grow(root, {"/jail/etc/hosts": b"old\n"})
        self.root = root
        self.etc = root / "jail/etc"
        self.kept: list[bytes] = []

    def inode(self, name: str) -> int:
        return (self.etc / name).lstat().st_ino

    def stage(self, contents: bytes = b"new\n") -> int:
        (self.etc / NAME).write_bytes(contents)
        return self.inode(NAME)

    def names(self) -> set[str]:
        return set(os.listdir(self.etc))

    def keep(self, copy: Copy) -> str:
        self.kept.append(copy.contents(100))
        return "digest"

    def clear(
        self,
        staged: int | None,
        old: int | None,
        *,
        path: str = "/etc/hosts",
        removes: bool = False,
    ) -> bool:
        image = Root(str(self.root))
        try:
            with closing(Writer(image).chroot("/jail")) as chroot:
                leftover = Leftover(path=path, temporary=NAME, staged=staged, old=old, removes=removes)
                return chroot.clear(leftover, self.keep)
        finally:
            image.close()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_nothing_was_staged(scene: Scene) -> None:
    assert scene.clear(None, None) is False
    assert scene.names() == {"hosts"}


def test_something_was_being_staged_of_which_the_name_alone_is_known(scene: Scene) -> None:
    scene.stage(b"ne")
    assert scene.clear(None, None) is False
    assert scene.names() == {"hosts"}
    assert scene.kept == []


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("x")])
def test_a_directory_or_a_link_was_being_staged(scene: Scene, make: Callable[[Path], None]) -> None:
    make(scene.etc / NAME)
    assert scene.clear(None, None) is False
    assert scene.names() == {"hosts"}


def test_it_was_staged_and_not_put(scene: Scene) -> None:
    staged = scene.stage()
    assert scene.clear(staged, scene.inode("hosts")) is False
    assert scene.names() == {"hosts"}
    assert (scene.etc / "hosts").read_bytes() == b"old\n"
    assert scene.kept == []


def test_it_was_put_and_what_came_out_is_still_there(scene: Scene) -> None:
    old, staged = scene.inode("hosts"), scene.stage()
    (scene.etc / "hosts").rename(scene.etc / "x")
    (scene.etc / NAME).rename(scene.etc / "hosts")
    (scene.etc / "x").rename(scene.etc / NAME)
    assert scene.clear(staged, old) is True
    assert scene.names() == {"hosts"}
    assert (scene.etc / "hosts").read_bytes() == b"new\n"
    assert scene.kept == [b"old\n"]


def test_it_was_put_and_what_came_out_was_removed(scene: Scene) -> None:
    old, staged = scene.inode("hosts"), scene.stage()
    (scene.etc / NAME).replace(scene.etc / "hosts")
    assert scene.clear(staged, old) is True
    assert scene.clear(staged, old) is True


def test_a_new_name_has_both_names_halfway_to_being_put_by_a_link(scene: Scene) -> None:
    staged = scene.stage()
    (scene.etc / "new").hardlink_to(scene.etc / NAME)
    assert scene.clear(staged, None, path="/etc/new") is True
    assert scene.names() == {"hosts", "new"}


def test_a_plain_exchange_gave_the_old_one_a_second_name(scene: Scene) -> None:
    old, staged = scene.inode("hosts"), scene.stage()
    (scene.etc / HALF).hardlink_to(scene.etc / "hosts")
    assert scene.clear(staged, old) is False
    assert scene.names() == {"hosts"}
    assert (scene.etc / "hosts").read_bytes() == b"old\n"


def test_a_plain_exchange_put_the_new_one_and_the_old_one_has_its_second_name(scene: Scene) -> None:
    old, staged = scene.inode("hosts"), scene.stage()
    (scene.etc / "hosts").rename(scene.etc / HALF)
    (scene.etc / NAME).rename(scene.etc / "hosts")
    assert scene.clear(staged, old) is True
    assert scene.names() == {"hosts"}
    assert scene.kept == [b"old\n"]


def test_a_plain_exchange_took_the_old_one_away_and_it_gets_its_name_back(scene: Scene) -> None:
    old, staged = scene.inode("hosts"), scene.stage()
    (scene.etc / "hosts").rename(scene.etc / HALF)
    assert scene.clear(staged, old) is False
    assert scene.names() == {"hosts"}
    assert (scene.etc / "hosts").read_bytes() == b"old\n"


def test_a_removal_took_its_target_out(scene: Scene) -> None:
    old = scene.inode("hosts")
    (scene.etc / "hosts").rename(scene.etc / NAME)
    assert scene.clear(None, old, removes=True) is True
    assert scene.names() == set()
    assert scene.kept == [b"old\n"]


def test_a_removal_had_not_begun(scene: Scene) -> None:
    assert scene.clear(None, scene.inode("hosts"), removes=True) is False
    assert scene.names() == {"hosts"}


def test_what_somebody_else_put_there_under_the_name_stays_and_is_told(scene: Scene) -> None:
    staged = scene.stage()
    (scene.etc / "other").write_bytes(b"somebody's\n")
    (scene.etc / "other").replace(scene.etc / NAME)
    with pytest.raises(
        RepairError, match="an interrupted repair left this name to something else; look at it and remove it"
    ):
        scene.clear(staged, scene.inode("hosts"))
    assert (scene.etc / NAME).read_bytes() == b"somebody's\n"


def test_the_directory_went_meanwhile(scene: Scene) -> None:
    assert scene.clear(1, 2, path="/gone/hosts") is False
