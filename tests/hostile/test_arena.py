"""The arena itself: it counts what is tried, and nothing that would be an escape goes unseen."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.arena import NEW, OLD, SECRET, Arena, Tally, snapshot
from tests.unit.machine import needs_root, set_acl

ESCAPES: dict[str, Callable[[Arena], object]] = {
    "a-new-file": lambda arena: (arena.outside / "new").write_bytes(b""),
    "a-new-file-beyond": lambda arena: (arena.beyond / "new").write_bytes(b""),
    "a-file-in-another-chroot": lambda arena: (arena.image / "jail/two/etc/new").write_bytes(b""),
    "a-removed-file": lambda arena: (arena.outside / "conf").unlink(),
    "a-written-file": lambda arena: (arena.outside / "conf").write_bytes(SECRET.upper()),
    "a-rewritten-file": lambda arena: (arena.outside / "conf").write_bytes(SECRET),
    "another-mode": lambda arena: (arena.outside / "conf").chmod(0o644),
    "the-same-mode": lambda arena: (arena.outside / "conf").chmod(0o600),
    "another-name": lambda arena: (arena.outside / "conf").rename(arena.outside / "moved"),
    "a-second-name": lambda arena: (arena.jail / "hard").hardlink_to(arena.outside / "conf"),
    "an-acl": lambda arena: set_acl(arena.outside / "conf", "-m", "u:1234:r"),
    "a-link": lambda arena: (arena.outside / "link").symlink_to("conf"),
    "a-secret-in-the-chroot": lambda arena: (arena.jail / "copy").write_bytes(SECRET),
    "a-secret-with-more-rights": lambda arena: (arena.jail / "planted").chmod(0o644),
}


@pytest.fixture
def counted(tmp_path: Path) -> Arena:
    """An arena that counts for itself."""
    tmp_path.chmod(0o755)
    (tmp_path / "arena").mkdir(mode=0o755)
    arena = Arena(tmp_path / "arena", Tally(tmp_path / "counts"))
    arena.plant({"/planted": SECRET})
    (arena.jail / "planted").chmod(0o600)
    return arena


@pytest.mark.parametrize("what", ESCAPES)
def test_an_escape_is_seen_and_counted(counted: Arena, what: str) -> None:
    with pytest.raises(AssertionError, match=r"changed outside|secrets came"), counted.untouched():
        ESCAPES[what](counted)
    assert counted.tally.counts() == {"escaped": 1}


@needs_root
def test_another_owner_is_an_escape(counted: Arena) -> None:
    with pytest.raises(AssertionError, match="changed outside"), counted.untouched():
        os.chown(counted.outside / "conf", 1, 1)


def test_what_is_only_read_is_not_changed(counted: Arena) -> None:
    before = snapshot(counted.top)
    with counted.untouched(inside=True):
        (counted.outside / "conf").read_bytes()
        list(counted.outside.iterdir())
    assert snapshot(counted.top).keys() - before.keys() == {
        f"{counted.top}/{name}" for name in ("chrootsync.toml", "rules/test.toml", "rules/calm.toml")
    }


def test_a_secret_that_is_told_is_seen_and_counted(counted: Arena) -> None:
    (counted.image / "etc/calm").write_bytes(SECRET)
    with pytest.raises(AssertionError, match="a secret was told"):
        counted.said(counted.run("check", "--diff", "--format", "plain"))
    assert counted.tally.counts() == {"escaped": 1}


def test_each_trial_is_counted(arena: Arena) -> None:
    arena.plant({"/etc/conf": OLD})
    arena.trial({"/etc/conf": "differs"})
    assert (arena.jail / "etc/conf").read_bytes() == NEW
    assert arena.tally.counts()["case"] > 0
