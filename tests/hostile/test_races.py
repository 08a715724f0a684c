"""What is swapped between two steps, between check and repair, or all the time."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from chrootsync.model import Device, FileType, InstanceReport, Rule, Status
from chrootsync.pipeline import check
from tests.hostile.arena import ATTACKER, NEW, OLD, Arena, patience, thorough
from tests.hostile.racing import Racer, at_call, exchange, meanwhile
from tests.unit.machine import needs_root
from tests.unit.scenery import grow, repair, rule, task

STEPS = 1000
"""What another process has to have done before it was a race."""
PATIENCE = 60.0
"""Seconds for that on a busy machine."""
HARD = b"a file of the host, with another name in the chroot\n"
RULE = rule(files=("/etc/conf", "/lib/libx.so"))
MORE = rule(files=("/etc/conf",), devices=(Device(path="/etc/null", kind=FileType.CHARACTER_DEVICE, major=1, minor=3),))


def replaced(path: Path) -> Path:
    """Make a name free; what was there has another one now."""
    if os.path.lexists(path):
        path.rename(path.with_name("spare"))
    return path


def without_a_trace(path: Path) -> None:
    """Write as much as was there and put the times back; only the ctime tells."""
    before = path.stat()
    path.write_bytes(OLD.upper())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


ATTACKS: dict[str, Callable[[Arena], object]] = {
    "the-directory-is-a-link-out": lambda arena: replaced(arena.jail / "etc").symlink_to(arena.outside),
    "the-directory-is-a-link-beyond": lambda arena: replaced(arena.jail / "etc").symlink_to(arena.beyond),
    "the-directory-is-a-link-by-dots": lambda arena: replaced(arena.jail / "etc").symlink_to("../../outside"),
    "the-directory-is-the-attackers": lambda arena: os.chown(arena.jail / "etc", ATTACKER, ATTACKER),
    "the-directory-is-open": lambda arena: (arena.jail / "etc").chmod(0o777),
    "the-directory-is-gone": lambda arena: replaced(arena.jail / "etc"),
    "the-directory-is-a-file": lambda arena: replaced(arena.jail / "etc").write_bytes(b""),
    "the-copy-is-a-link-out": lambda arena: replaced(arena.jail / "etc/conf").symlink_to("/outside/shadow"),
    "the-copy-is-a-link-beyond": lambda arena: replaced(arena.jail / "etc/conf").symlink_to(arena.beyond / "shadow"),
    "the-copy-is-a-second-name": lambda arena: replaced(arena.jail / "etc/conf").hardlink_to(arena.image / "jail/hard"),
    "the-copy-is-a-fifo": lambda arena: os.mkfifo(replaced(arena.jail / "etc/conf")),
    "the-copy-is-a-directory": lambda arena: replaced(arena.jail / "etc/conf").mkdir(),
    "the-copy-is-a-full-directory": lambda arena: (replaced(arena.jail / "etc/conf") / "x/y").mkdir(parents=True),
    "the-copy-is-another": lambda arena: replaced(arena.jail / "etc/conf").write_bytes(b"another\n"),
    "the-copy-is-written": lambda arena: (arena.jail / "etc/conf").write_bytes(b"evil\n"),
    "the-copy-is-written-without-a-trace": lambda arena: without_a_trace(arena.jail / "etc/conf"),
    "the-copy-is-the-attackers": lambda arena: os.chown(arena.jail / "etc/conf", ATTACKER, ATTACKER),
    "the-copy-is-gone": lambda arena: (arena.jail / "etc/conf").unlink(missing_ok=True),
    "the-chroot-is-open": lambda arena: arena.jail.chmod(0o777),
    "the-chroot-is-a-link-out": lambda arena: replaced(arena.jail).symlink_to(arena.outside),
    "the-chroot-is-another": lambda arena: grow(replaced(arena.jail), {"/etc/conf": OLD}),
    "the-chroot-is-the-attackers": lambda arena: os.chown(arena.jail, ATTACKER, ATTACKER),
    "the-chroot-is-gone": lambda arena: replaced(arena.jail),
}
ON_TEMPORARIES: dict[str, Callable[[Arena, Path], object]] = {
    "is-a-link": lambda arena, path: path.symlink_to(arena.beyond / "shadow"),
    "is-a-second-name": lambda arena, path: path.hardlink_to(arena.image / "jail/hard"),
    "is-a-fifo": lambda _, path: os.mkfifo(path),
    "is-gone": lambda _arena, _path: None,
}


def set_up(arena: Arena) -> None:
    """The chroot as it was before the attack: a stale file, a missing library; ``hard`` is a file of the host."""
    for name in ("one", "spare", "hard"):
        path = arena.image / "jail" / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if not (arena.image / "lib").exists():
        arena.host({"/lib/libx.so": b"\x7fELF"})
    arena.host({"/jail/hard": HARD, "/jail/one": None})
    arena.plant({"/etc/conf": OLD})


def statuses(reports: tuple[InstanceReport, ...]) -> set[Status]:
    return {one.outcome.status for report in reports for one in report.findings if one.outcome is not None}


# --- Between check and repair -------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_swapped_between_check_and_repair_is_seen(arena: Arena, attack: str) -> None:
    arena.tally.add("case")
    set_up(arena)
    arena.changes(arena.image / "jail")
    with task(arena.image, [RULE]) as (work, writer), patience(20):
        found = check(work)
        ATTACKS[attack](arena)
        jail = arena.leaks()
        with arena.untouched():
            done = repair(work, writer, found)
    assert arena.leaks() == jail
    assert (arena.image / "jail/hard").read_bytes() == HARD
    assert statuses(done) <= {Status.FAILED, Status.SKIPPED}, "what was compared is not there any more"


def test_a_directory_that_is_another_by_now_keeps_its_mode(arena: Arena) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": NEW})
    (arena.jail / "etc").chmod(0o700)
    with task(arena.image, [rule(files=("/etc/conf",))]) as (work, writer):
        found = check(work)
        replaced(arena.jail / "etc").mkdir(mode=0o700)
        with arena.untouched():
            done = repair(work, writer, found)
    assert statuses(done) == {Status.FAILED}
    assert [(arena.jail / name).stat().st_mode & 0o777 for name in ("etc", "spare")] == [0o700, 0o700]


# --- Between any two steps ----------------------------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_swapped_between_two_steps_nothing_outside_is_touched(arena: Arena, attack: str) -> None:
    swept(arena, lambda: ATTACKS[attack](arena))


@needs_root
@pytest.mark.parametrize("attack", ON_TEMPORARIES)
def test_whatever_a_temporary_is_swapped_for_nothing_outside_is_touched(arena: Arena, attack: str) -> None:
    """Only root can do that, in directories that nobody else can write."""

    def act() -> None:
        for path in arena.jail.glob("*/.chrootsync-*"):
            ON_TEMPORARIES[attack](arena, replaced(path))

    swept(arena, act, MORE)


def swept(arena: Arena, act: Callable[[], object], wanted: Rule = RULE) -> None:
    """Check and repair again and again, with the attack one step later each time."""
    arena.tally.add("case")
    arena.changes(arena.image / "jail")
    set_up(arena)
    hard, around = arena.image / "jail/hard", arena.around()
    for number in itertools.count(1):
        set_up(arena)
        before = hard.stat()
        with (
            patience(20),
            task(arena.image, [wanted]) as (work, writer),
            suppress(OSError),
            at_call(number, lambda: suppressed(act)) as acted,
        ):
            repair(work, writer, check(work))
        now = hard.stat()
        same = (before.st_mode, before.st_uid, before.st_size) == (now.st_mode, now.st_uid, now.st_size)
        if not same or hard.read_bytes() != HARD or arena.around() != around or arena.leaks():
            arena.tally.add("escaped")
            pytest.fail(f"a file of the host was changed at step {number}")
        if not acted():
            break
    assert number > 50, "there were steps to come between"


def suppressed(act: Callable[[], object]) -> None:
    with suppress(OSError):
        act()


THEIRS = {
    "the-copy-is-written": b"evil\n",
    "the-copy-is-another": b"another\n",
    "the-copy-is-a-full-directory": None,
}


@pytest.mark.parametrize("attack", THEIRS)
def test_what_somebody_else_puts_there_between_two_steps_is_never_lost(arena: Arena, attack: str) -> None:
    """But what is written without a trace between the last look at the ctime and the swap itself, one call later."""
    arena.tally.add("case")
    for number in itertools.count(1):
        set_up(arena)
        with patience(20), task(arena.image, [RULE]) as (work, writer):
            found = check(work)
            with at_call(number, lambda: ATTACKS[attack](arena)) as acted:
                repair(work, writer, found)
        if not acted():
            break
        files = [path.read_bytes() for path in arena.jail.rglob("*") if path.is_file()]
        assert THEIRS[attack] in files or (arena.jail / "etc/conf/x/y").is_dir(), f"lost at step {number}"
    assert number > 30, "there were steps to come between"


# --- All the time -------------------------------------------------------------------------------------------------


def raced(arena: Arena, racer: Racer, seconds: float, each: Callable[[int], object]) -> list[int]:
    """Repair for some seconds (in the long run for many more); the exit status of each run."""
    codes: list[int] = []
    race = racing(racer, seconds * (10 if thorough() else 1))
    arena.separate = False
    while next(race) or len(codes) < 10:
        each(len(codes))
        with arena.untouched():
            codes.append(arena.said(arena.fix()).code)
        assert codes[-1] in (0, 1, 3)
    arena.tally.add("repair", len(codes))
    return codes


def racing(racer: Racer, seconds: float) -> Iterator[bool]:
    """Whether the race goes on: for some seconds, and on a busy machine until there was one."""
    began = time.monotonic()
    while True:
        past = time.monotonic() - began
        assert racer.steps > STEPS or past < PATIENCE, f"the other process took {racer.steps} steps only"
        yield past < seconds or racer.steps <= STEPS


@needs_root
@pytest.mark.parametrize("how", ["his-own-directory", "a-sticky-directory"])
def test_an_attacker_who_swaps_a_directory_of_his_own_is_refused_every_time(arena: Arena, how: str) -> None:
    arena.tally.add("case")
    arena.host({"/srv/www/conf": NEW})
    arena.rule(files=["/srv/www/conf"])
    arena.plant({"/srv/www/conf": OLD, "/srv/trap": str(arena.outside)})
    arena.give_away("/srv/www", "/srv/trap", *(["/srv"] if how == "his-own-directory" else []))
    (arena.jail / "srv").chmod(0o1777 if how == "a-sticky-directory" else 0o755)
    fd = os.open(arena.jail / "srv", os.O_RDONLY)
    with meanwhile(lambda: exchange(fd, "www", "trap"), uid=ATTACKER) as racer:
        codes = raced(arena, racer, 1, lambda _: None)
    os.close(fd)
    arena.tally.add("swap", racer.steps)
    assert set(codes) == {1}
    assert [path.read_bytes() for path in arena.jail.glob("srv/*/conf") if not path.parent.is_symlink()] == [OLD]


@needs_root
@pytest.mark.parametrize(
    ("where", "owner", "seconds"),
    [("/outside", 0, 3), ("beyond", 0, 1), ("/outside", ATTACKER, 1), ("beyond", ATTACKER, 1)],
)
def test_a_directory_that_is_a_link_half_of_the_time_never_leads_out(
    arena: Arena, where: str, owner: int, seconds: float
) -> None:
    """Nobody but root could do this here; even so nothing outside is touched."""
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD, "/trap": str(arena.beyond) if where == "beyond" else where})
    arena.give_away("/trap", owner=owner)
    fd = os.open(arena.jail, os.O_RDONLY)
    with meanwhile(lambda: exchange(fd, "etc", "trap")) as racer:
        codes = raced(arena, racer, seconds, lambda turn: (arena.image / "etc/conf").write_bytes(NEW * (1 + turn % 7)))
    os.close(fd)
    arena.tally.add("swap", racer.steps)
    assert len(set(codes)) > 1, "the race was won at times, and lost at others"


@needs_root
@pytest.mark.parametrize("what", ["link", "second-name", "fifo", "another"])
def test_a_copy_that_is_something_else_half_of_the_time_is_never_followed(arena: Arena, what: str) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    trap, hard = arena.jail / "etc/trap", arena.image / "jail/hard"
    if what == "link":
        trap.symlink_to(arena.beyond / "shadow")
    elif what == "second-name":
        hard.write_bytes(HARD)
        hard.chmod(0o600)
        trap.hardlink_to(hard)
        arena.changes(hard)  # its names change places all the time
    elif what == "fifo":
        os.mkfifo(trap)
    else:
        trap.write_bytes(b"another\n")
    fd = os.open(arena.jail / "etc", os.O_RDONLY)
    with meanwhile(lambda: exchange(fd, "conf", "trap")) as racer:
        codes = raced(arena, racer, 1, lambda turn: (arena.image / "etc/conf").write_bytes(NEW * (1 + turn % 7)))
    os.close(fd)
    arena.tally.add("swap", racer.steps)
    assert codes
    if what == "second-name":
        assert hard.read_bytes() == HARD
        assert hard.stat().st_mode & 0o777 == 0o600


@needs_root
def test_whoever_keeps_writing_to_a_copy_of_his_own_does_not_hold_up_its_repair(arena: Arena) -> None:
    """What he writes meanwhile is lost, and nothing else: his file is taken out as a whole."""
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    copy = arena.jail / "etc/conf"
    os.chown(copy, ATTACKER, ATTACKER)
    fd = os.open(copy, os.O_WRONLY)
    with meanwhile(lambda: os.write(fd, b"x"), uid=ATTACKER) as racer:
        race = racing(racer, 0)
        while next(race):
            time.sleep(0.01)
        assert arena.fix().code == 0
    os.close(fd)
    assert copy.read_bytes() == NEW
    assert copy.stat().st_uid == 0
    assert arena.check().code == 0


@needs_root
def test_a_source_that_is_a_secret_half_of_the_time_makes_no_secret_readable(arena: Arena) -> None:
    """Whoever owns the directory of a source can have a secret copied; its copy is as secret."""
    arena.tally.add("case")
    arena.host({"/srv/feed/conf": NEW, "/srv/feed/trap": str(arena.outside / "shadow")})
    for path in ("", "/conf"):
        os.chown(f"{arena.image}/srv/feed{path}", ATTACKER, ATTACKER)
    (arena.image / "srv/feed/trap").unlink()
    (arena.image / "srv/feed/trap").symlink_to("/outside/shadow")
    arena.rule(files=["/srv/feed/conf"])
    arena.changes(arena.image / "srv/feed")
    fd = os.open(arena.image / "srv/feed", os.O_RDONLY)
    codes = [arena.fix().code]
    with meanwhile(lambda: exchange(fd, "conf", "trap"), uid=ATTACKER) as racer:
        around = arena.around()
        race = racing(racer, 1)
        while next(race):
            codes.append(arena.fix().code)
            assert not [path for path, mode in arena.leaks().items() if mode & 0o077]
        assert arena.around() == around
    os.close(fd)
    arena.tally.add("swap", racer.steps)
    arena.tally.add("repair", len(codes))


@needs_root
def test_an_attacker_who_keeps_writing_to_his_copy_harms_nobody_else(arena: Arena) -> None:
    arena.tally.add("case")
    arena.plant({"/etc/conf": OLD})
    arena.give_away("/etc/conf")
    fd = os.open(arena.jail / "etc/conf", os.O_RDWR)
    with meanwhile(lambda: os.pwrite(fd, os.urandom(4), 0), uid=ATTACKER) as racer:
        codes = raced(arena, racer, 1, lambda _: None)
    os.close(fd)
    arena.tally.add("swap", racer.steps)
    assert set(codes) <= {0, 3}
    assert arena.fix().code == 0
    assert (arena.jail / "etc/conf").read_bytes() == NEW
