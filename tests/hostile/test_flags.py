"""Immutable and append-only files and directories."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.arena import NEW, OLD, Arena
from tests.unit.machine import needs_root

pytestmark = needs_root
LSATTR = r"lsattr tells, chattr -ia mends"
Flagger = Callable[[str, str], None]


@pytest.fixture
def flag(arena: Arena) -> Iterator[Flagger]:
    """Set flags of chattr(1) on a path in the image; none are left afterwards."""
    flagged: list[Path] = []

    def change(flags: str, path: str) -> None:
        place = arena.image / path.lstrip("/")
        try:
            subprocess.run(["chattr", flags, place], capture_output=True, text=True, check=True)
        except FileNotFoundError:
            pytest.skip("there is no chattr(1) here")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"this file system has no flags: {error.stderr.strip()}")
        flagged.append(place)

    yield change
    for place in flagged:
        if place.exists():
            subprocess.run(["chattr", "-ia", place], check=False)


@pytest.mark.parametrize("flags", ["+i", "+a", "+ia"])
@pytest.mark.parametrize("where", ["/jail/one/etc/conf", "/jail/one/etc", "/jail/one/usr"])
def test_what_cannot_be_changed_fails_as_a_whole_and_says_why(
    arena: Arena, flag: Flagger, where: str, flags: str
) -> None:
    arena.host({"/usr/share/conf": NEW, "/var/conf": NEW})
    arena.rule(files=["/etc/conf", "/usr/share/conf", "/var/conf"])
    arena.plant({"/etc/conf": OLD, "/usr": None, "/var/conf": OLD})
    flag(flags, where)

    def mend() -> None:
        assert (arena.jail / "var/conf").read_bytes() == OLD
        assert not (arena.jail / "usr/share").exists()
        flag("-ia", where)

    arena.trial(
        {"/etc/conf": "differs", "/usr/share": "missing", "/usr/share/conf": "missing", "/var/conf": "differs"},
        says=LSATTR,
        mend=mend,
    )


@pytest.mark.parametrize("flags", ["+i", "+a"])
def test_a_chroot_that_cannot_be_changed_fails_and_says_why(arena: Arena, flag: Flagger, flags: str) -> None:
    flag(flags, "/jail/one")
    arena.trial(
        {"/etc": "missing", "/etc/conf": "missing"},
        says=LSATTR,
        mend=lambda: flag(flags.replace("+", "-"), "/jail/one"),
    )


@pytest.mark.parametrize("flags", ["+i", "+a"])
def test_a_wrong_mode_of_a_directory_that_cannot_be_changed_says_why(arena: Arena, flag: Flagger, flags: str) -> None:
    arena.plant({"/etc/conf": NEW})
    (arena.jail / "etc").chmod(0o700)
    flag(flags, "/jail/one/etc")
    arena.trial({"/etc": "metadata"}, says=LSATTR, mend=lambda: flag("-ia", "/jail/one/etc"))


@pytest.mark.parametrize("flags", ["+i", "+a", "+ia"])
def test_a_source_that_cannot_be_changed_is_copied_and_its_copy_can(arena: Arena, flag: Flagger, flags: str) -> None:
    flag(flags, "/etc/conf")
    arena.plant({"/etc/conf": OLD})
    arena.trial({"/etc/conf": "differs"})
    (arena.jail / "etc/conf").unlink()


@pytest.mark.parametrize("flags", ["+i", "+a"])
def test_a_good_copy_that_cannot_be_changed_is_in_sync(arena: Arena, flag: Flagger, flags: str) -> None:
    arena.plant({"/etc/conf": NEW})
    flag(flags, "/jail/one/etc/conf")
    flag(flags, "/jail/one/etc")
    arena.trial({})
