"""What a repair keeps of what it replaced, what a rollback gives back, and what the next run makes of a kill."""

from __future__ import annotations

import os
import shutil
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.hostile.arena import ATTACKER, OLD, SECRET, Arena, Found, temporaries, thorough
from tests.hostile.racing import at_call
from tests.unit.machine import needs_root
from tests.unit.scenery import grow

STRIDE = 1 if thorough() else 17  # steps between two kills
HARD = b"a file of the host, with another name in the chroot\n"


@pytest.fixture
def remembering(arena: Arena) -> Arena:
    """An arena whose repairs are remembered."""
    (arena.top / "memory").mkdir(mode=0o700)
    arena.changes(arena.top / "memory")
    return arena


def fix(arena: Arena) -> Found:
    return arena.fix("--state", str(arena.top / "memory/state"))


def rollback(arena: Arena, *words: str) -> Found:
    return arena.run("rollback", *words, "--format", "json", "--state", str(arena.top / "memory/state"))


def kept(arena: Arena) -> dict[str, bytes]:
    """The kept contents by their paths, which nobody but root can reach."""
    found: dict[str, bytes] = {}
    for folder, folders, files in os.walk(arena.top / "memory/state"):
        for name in folders + files:
            status = os.lstat(f"{folder}/{name}")
            assert (status.st_uid, status.st_mode & 0o077) == (os.geteuid(), 0)
            assert stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
        found |= {f"{folder}/{name}": Path(folder, name).read_bytes() for name in files}
    return found


# --- Keeping and giving back --------------------------------------------------------------------------------------


def written(path: Path, bits: int) -> None:
    path.write_bytes(OLD)
    path.chmod(bits)


ATTACKS: dict[str, Callable[[Arena, Path], object]] = {
    "a-stale-copy": lambda _, path: path.write_bytes(OLD),
    "a-link-to-a-secret": lambda arena, path: path.symlink_to(arena.beyond / "shadow"),
    "a-link-to-a-secret-of-the-image": lambda _, path: path.symlink_to("/outside/shadow"),
    "a-fifo": lambda _, path: os.mkfifo(path),
    "a-device": lambda _, path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
    "an-empty-directory": lambda _, path: path.mkdir(mode=0o755),
    "a-set-id-file": lambda _, path: written(path, 0o4755),
    "an-open-file": lambda _, path: written(path, 0o666),
}


@needs_root
@pytest.mark.parametrize("owner", [pytest.param(0, id="roots"), pytest.param(ATTACKER, id="attackers")])
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_an_attacker_had_there_is_taken_back_as_nothing_worse(remembering: Arena, attack: str, owner: int) -> None:
    arena = remembering
    arena.tally.add("case")
    arena.plant({"/etc": None})
    copy = arena.jail / "etc/conf"
    ATTACKS[attack](arena, copy)
    bits = stat.S_IMODE(copy.lstat().st_mode)
    if not (owner and attack == "an-empty-directory"):
        arena.give_away("/etc/conf", owner=owner)
    if not copy.is_symlink():
        copy.chmod(bits)  # which giving it away may have cleared
    with arena.untouched():
        assert arena.said(fix(arena)).code == 0
        assert not [path for path, data in kept(arena).items() if SECRET in data]
        arena.said(rollback(arena))
        arena.said(fix(arena))
    assert not stat.S_ISREG(copy.lstat().st_mode) or stat.S_IMODE(copy.lstat().st_mode) & ~0o755 == 0
    assert temporaries(arena.jail) == []
    assert arena.fix().code == 0
    assert arena.check().kinds == {}


def test_a_huge_copy_is_not_kept_and_holds_nothing_up(remembering: Arena) -> None:
    arena = remembering
    arena.tally.add("case")
    arena.patience = 10
    arena.plant({"/etc/conf": OLD})
    os.truncate(arena.jail / "etc/conf", 1 << 40)
    with arena.untouched():
        fixed = arena.said(fix(arena))
    assert fixed.code == 0
    assert "could not be kept for a rollback" in " ".join(fixed.report["notes"])
    assert sum(map(len, kept(arena).values())) < 1 << 20


def test_a_secret_that_was_copied_is_given_back_to_root_alone(remembering: Arena) -> None:
    arena = remembering
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").chmod(0o600)
    assert fix(arena).code == 0
    assert stat.S_IMODE((arena.jail / "etc/conf").stat().st_mode) == 0o600
    with arena.untouched():
        assert arena.said(rollback(arena)).code == 0
    assert (arena.jail / "etc/conf").read_bytes() == OLD
    assert stat.S_IMODE((arena.jail / "etc/conf").stat().st_mode) == 0o600, "the source is for root alone"


SWAPS: dict[str, Callable[[Arena], object]] = {
    "the-directory-is-a-link": lambda arena: moved(arena.jail / "etc").symlink_to(arena.beyond),
    "the-directory-is-the-attackers": lambda arena: os.chown(arena.jail / "etc", ATTACKER, ATTACKER),
    "the-directory-is-open": lambda arena: (arena.jail / "etc").chmod(0o777),
    "the-copy-is-a-link": lambda arena: moved(arena.jail / "etc/conf").symlink_to(arena.beyond / "shadow"),
    "the-copy-is-a-second-name": lambda arena: moved(arena.jail / "etc/conf").hardlink_to(arena.image / "jail/hard"),
    "the-copy-is-a-fifo": lambda arena: os.mkfifo(moved(arena.jail / "etc/conf")),
    "the-copy-is-a-full-directory": lambda arena: (moved(arena.jail / "etc/conf") / "x").mkdir(parents=True),
    "the-chroot-is-a-link": lambda arena: moved(arena.jail).symlink_to(arena.outside),
    "the-chroot-is-the-attackers": lambda arena: os.chown(arena.jail, ATTACKER, ATTACKER),
}


def moved(path: Path) -> Path:
    """Make a name free."""
    if os.path.lexists(path):
        path.rename(path.with_name("spare"))
    return path


@needs_root
@pytest.mark.parametrize("force", [False, True], ids=["plain", "forced"])
@pytest.mark.parametrize("swap", SWAPS)
def test_what_is_swapped_after_a_repair_makes_a_rollback_touch_nothing_outside(
    remembering: Arena, swap: str, *, force: bool
) -> None:
    arena = remembering
    arena.tally.add("case")
    arena.host({"/jail/hard": HARD})
    arena.plant({"/etc/conf": OLD})
    fix(arena)
    arena.changes(arena.image / "jail")
    SWAPS[swap](arena)
    leaks = arena.leaks()
    with arena.untouched():
        arena.said(rollback(arena, *(["--force"] if force else [])))
    assert (arena.image / "jail/hard").read_bytes() == HARD
    assert arena.leaks() == leaks


# --- After a kill -------------------------------------------------------------------------------------------------

LEFT: dict[str, Callable[[Arena, Path], object]] = {
    **dict.fromkeys(["nothing"], lambda _arena, _path: None),
    "its-temporary-is-a-link": lambda arena, path: path.symlink_to(arena.beyond / "shadow"),
    "its-temporary-is-a-second-name": lambda arena, path: path.hardlink_to(arena.image / "jail/hard"),
    "its-temporary-is-a-fifo": lambda _, path: os.mkfifo(path),
    "its-temporary-is-a-directory": lambda _, path: path.mkdir(),
    "its-temporary-is-a-full-directory": lambda _, path: (path / "x").mkdir(parents=True),
    "its-temporary-is-a-secret": lambda _, path: path.write_bytes(SECRET),
}


def killed(arena: Arena, number: int) -> bool:
    """Repair in another process, and kill it before that call which looks a name up; whether it came so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the threads of a test runner hold no locks of ours
        child = os.fork()
    if child == 0:
        with suppress(BaseException), at_call(number, lambda: os._exit(9)):
            fix(arena)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def set_up(arena: Arena) -> None:
    for name in ("one", "spare", "hard"):
        path = arena.image / "jail" / name
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    shutil.rmtree(arena.top / "memory/state", ignore_errors=True)
    grow(arena.image, {"/jail/hard": HARD, "/jail/one/etc/conf": OLD})


def after_kills(
    arena: Arena, act: Callable[[], object], first: int, look: Callable[[Found], object] = lambda _: None
) -> None:
    """Kill a repair at one step after the other, let the attacker act, and repair once more."""
    arena.tally.add("case")
    arena.separate = False
    arena.changes(arena.image / "jail")
    number, hard = 1 + first % STRIDE, arena.image / "jail/hard"
    while True:
        set_up(arena)
        if not killed(arena, number):
            break
        act()
        leaks, before = arena.leaks(), hard.stat()
        with arena.untouched():
            look(arena.said(fix(arena)))
        now = hard.stat()
        assert (before.st_mode, before.st_uid, before.st_size) == (now.st_mode, now.st_uid, now.st_size)
        assert hard.read_bytes() == HARD
        assert not arena.leaks().items() - leaks.items()
        assert not [path for path, data in kept(arena).items() if SECRET in data]
        number += STRIDE
    assert number > 100, "there were steps to kill it at"


@needs_root
@pytest.mark.parametrize("what", LEFT)
def test_whatever_a_temporary_of_a_killed_repair_is_swapped_for_nothing_outside_is_touched(
    remembering: Arena, what: str
) -> None:
    """Only root can do that, in directories that nobody else can write."""

    def act() -> None:
        for path in list(remembering.jail.glob("*/.chrootsync-*")):
            if what != "nothing":
                LEFT[what](remembering, moved(path))

    after_kills(remembering, act, list(LEFT).index(what))


@needs_root
def test_what_took_the_name_of_a_temporary_meanwhile_is_left_alone_and_told(remembering: Arena) -> None:
    arena = remembering
    theirs: list[Path] = []

    def act() -> None:
        theirs[:] = [moved(path) for path in list(arena.jail.glob("*/.chrootsync-*"))][:1]
        for path in theirs:
            path.write_bytes(b"mine")
            os.chown(path, ATTACKER, ATTACKER)

    def check(found: Found) -> None:
        assert [path.read_bytes() for path in theirs] == [b"mine"] * len(theirs)
        said = " ".join(found.report["notes"])
        assert not theirs or f"{theirs[0].name}: an interrupted repair left this name to something else" in said

    after_kills(arena, act, 3, check)


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
def test_whatever_is_swapped_after_a_kill_nothing_outside_is_touched(remembering: Arena, swap: str) -> None:
    after_kills(remembering, lambda: SWAPS[swap](remembering), list(SWAPS).index(swap))
