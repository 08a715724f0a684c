"""Mount points at the target, on the way there, and on the chroot itself; nobody but the test sees them."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chrootsync.pipeline import check
from tests.hostile.arena import ATTACKER, NEW, OLD, Arena
from tests.unit.machine import mount, needs_root, with_private_mounts
from tests.unit.scenery import drifts, repair, rule, task

pytestmark = needs_root
UNMOUNT = "something is mounted here; unmount it"


def umount(path: Path) -> None:
    subprocess.run(["umount", path], check=True, capture_output=True)


def bind(what: Path, where: Path) -> None:
    mount("--bind", what, where)


@pytest.mark.parametrize("what", ["etc/conf", "outside/shadow", "jail/two/etc/calm", "jail/one/etc/other"])
@pytest.mark.parametrize("name", ["conf", "con f", "con\nf\t\\"])
def test_a_file_that_is_mounted_over_the_copy_is_never_replaced(arena: Arena, what: str, name: str) -> None:
    def prove() -> None:
        arena.host({f"/etc/odd/{name}": NEW})
        arena.rule(directories=["/etc/odd"])
        arena.plant({f"/etc/odd/{name}": OLD, "/etc/other": OLD})
        place = arena.jail / "etc/odd" / name
        bind(arena.image / what, place)
        arena.trial(
            {f"/etc/odd/{name}": "unsafe"}, says=f"{UNMOUNT}, a copy cannot replace", mend=lambda: umount(place)
        )
        assert place.read_bytes() == NEW

    with_private_mounts(prove)


def test_a_socket_that_was_mounted_into_the_chroot_is_not_missed(arena: Arena) -> None:
    def prove() -> None:
        arena.plant({"/run/mux/x": OLD, "/run/log": OLD})
        wanted = [rule(id="test.sockets", sockets=("/run/mux/socket", "/run/log", "/run/other"))]
        bind(arena.image / "outside", arena.jail / "run/mux")
        bind(arena.image / "outside/shadow", arena.jail / "run/log")
        with task(arena.image, wanted) as (work, _):
            assert [drift.entry.path for drift in drifts(check(work))] == ["/run/other"]

    with_private_mounts(prove)


@pytest.mark.parametrize("over", ["/etc", "/usr", "/usr/share"])
@pytest.mark.parametrize("what", ["tmpfs", "outside", "etc", "jail/two", "itself", "ramfs"])
def test_nothing_is_written_beneath_a_mount_in_the_chroot(arena: Arena, what: str, over: str) -> None:
    def prove() -> None:
        below = "/usr/share/conf" if over != "/etc" else "/etc/conf"
        arena.host({below: NEW})
        arena.rule(files=[below])
        arena.plant({below: OLD})
        place = arena.jail / over[1:]
        if what in ("tmpfs", "ramfs"):
            mount("-t", what, "-o", "mode=0755", what, place)
        else:
            bind(place if what == "itself" else arena.image / what, place)
        arena.trial({over: "unsafe"}, says=UNMOUNT, mend=lambda: umount(place))
        assert (arena.jail / below[1:]).read_bytes() == NEW

    with_private_mounts(prove)


def test_what_is_mounted_read_only_is_told_as_any_mount(arena: Arena) -> None:
    def prove() -> None:
        arena.plant({"/etc/conf": OLD})
        bind(arena.jail / "etc", arena.jail / "etc")
        mount("-o", "remount,bind,ro", arena.jail / "etc")
        arena.trial({"/etc": "unsafe"}, says=UNMOUNT, mend=lambda: umount(arena.jail / "etc"))

    with_private_mounts(prove)


# --- The chroot itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separate", [False, True], ids=["in-process", "as-a-process"])
@pytest.mark.parametrize("what", ["tmpfs", "itself", "another-directory"])
def test_a_chroot_may_be_a_mount(arena: Arena, what: str, *, separate: bool) -> None:
    def prove() -> None:
        arena.separate = separate
        if what == "tmpfs":
            mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", arena.jail)
        elif what == "itself":
            bind(arena.jail, arena.jail)
        else:
            arena.host({"/srv/jail": None})
            arena.changes(arena.image / "srv/jail")
            bind(arena.image / "srv/jail", arena.jail)
        arena.plant({"/etc/conf": OLD})
        arena.trial({"/etc/conf": "differs"})

    with_private_mounts(prove)


def test_a_chroot_that_is_mounted_read_only_stays_as_it_is(arena: Arena) -> None:
    def prove() -> None:
        arena.plant({"/etc/conf": OLD})
        bind(arena.jail, arena.jail)
        mount("-o", "remount,bind,ro", arena.jail)
        arena.trial(
            {"/etc/conf": "differs"},
            says="read-only file system",
            mend=lambda: mount("-o", "remount,bind,rw", arena.jail),
        )

    with_private_mounts(prove)


def test_a_chroot_in_a_file_system_of_its_own_that_others_can_write_is_refused(arena: Arena) -> None:
    def prove() -> None:
        mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", arena.jail)
        arena.trial({"/": "bad-instance"}, says="chmod go-w", mend=lambda: arena.jail.chmod(0o755))

    with_private_mounts(prove)


def test_the_root_mounted_as_a_chroot_is_refused(arena: Arena) -> None:
    def prove() -> None:
        bind(arena.image, arena.jail)
        arena.trial({"/": "bad-instance"}, says="is the root itself", mend=lambda: umount(arena.jail))

    with_private_mounts(prove)


@pytest.mark.parametrize("source", ["etc", "usr"])
def test_a_directory_of_sources_mounted_as_a_chroot_is_refused(arena: Arena, source: str) -> None:
    def prove() -> None:
        arena.host({"/usr/lib/conf": NEW})
        arena.rule(files=["/etc/conf", "/usr/lib/conf"])
        bind(arena.image / source, arena.jail)
        arena.trial({"/": "bad-instance"}, says="is to be copied, lies in it", mend=lambda: umount(arena.jail))

    with_private_mounts(prove)


def test_a_source_that_a_mounted_chroot_brings_along_is_not_replaced(arena: Arena) -> None:
    """The host's file is a link into a directory that is mounted as the chroot: the copy is the source."""

    def prove() -> None:
        arena.host({"/srv/jail/etc/real": NEW, "/etc/real": "../srv/jail/etc/real"})
        (arena.image / "srv/jail/etc/real").chmod(0o666)
        arena.rule(files=["/etc/real"])
        bind(arena.image / "srv/jail", arena.jail)
        arena.trial({"/etc/real": "unsafe"}, says="put the original outside", mend=lambda: umount(arena.jail))

    with_private_mounts(prove)


# --- File systems that do not answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whose", "options"),
    [
        ("attackers", f"user_id={ATTACKER},group_id={ATTACKER}"),
        ("everybodys", "user_id=0,group_id=0,allow_other"),
    ],
)
@pytest.mark.parametrize("where", ["etc", "etc/conf"])
def test_a_mount_that_never_answers_holds_nothing_up(arena: Arena, where: str, whose: str, options: str) -> None:
    """As a network file system whose server is gone, or a FUSE of some user, fusermount(1)."""

    def prove() -> None:
        arena.plant({"/etc/conf": OLD})
        arena.separate, arena.patience = True, 5
        with arena.untouched(inside=True), unanswered(arena.jail / where, options):
            found, fixed = arena.said(arena.check()), arena.said(arena.fix())
        assert list(found.kinds) == list(fixed.kinds) == [f"/{where}"], whose
        assert set(found.kinds.values()) <= {"unsafe", "unreadable"}
        assert arena.fix().code == 0
        assert arena.check().kinds == {}

    arena.tally.add("case")
    with_private_mounts(prove)


@contextmanager
def unanswered(where: Path, options: str) -> Iterator[None]:
    """Mount a FUSE that nobody serves, fuse(4)."""
    try:
        fd = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no FUSE here: {error}")
    rootmode = f"{stat.S_IFMT(where.stat().st_mode):o}"
    libc = ctypes.CDLL(None, use_errno=True)
    data = f"fd={fd},rootmode={rootmode},{options}".encode()
    if libc.mount(b"nobody", os.fsencode(where), b"fuse", ctypes.c_ulong(0), data) != 0:
        os.close(fd)
        pytest.skip(f"no FUSE here: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        os.close(fd)
        subprocess.run(["umount", "--lazy", where], check=True)


# --- Other file systems -------------------------------------------------------------------------------------------


def elsewhere(arena: Arena, prepare: Callable[[Path], None]) -> Arena:
    """An arena on another file system."""
    place = arena.top / "elsewhere"
    place.mkdir()
    prepare(place)
    place.chmod(0o755)
    (place / "arena").mkdir(mode=0o755)
    return Arena(place / "arena", arena.tally)


def overlaid(arena: Arena) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        for name in ("lower", "rw"):
            (arena.top / name).mkdir()
        mount("-t", "tmpfs", "tmpfs", arena.top / "rw")
        for name in ("upper", "work"):
            (arena.top / "rw" / name).mkdir()
        layers = ",".join(
            f"{key}dir={arena.top}/{path}"
            for key, path in (("lower", "lower"), ("upper", "rw/upper"), ("work", "rw/work"))
        )
        mount("-t", "overlay", "-o", layers, "overlay", place)

    return prepare


@pytest.mark.parametrize("kind", ["tmpfs", "overlay"])
def test_other_file_systems_are_as_safe(arena: Arena, kind: str) -> None:
    def prove() -> None:
        tmpfs = lambda place: mount("-t", "tmpfs", "tmpfs", place)  # noqa: E731
        there = elsewhere(arena, overlaid(arena) if kind == "overlay" else tmpfs)
        there.rule(files=["/etc/conf", "/usr/share/conf", "/lib/libx.so"])
        there.host({"/usr/share/conf": NEW, "/lib/libx.so": NEW})
        there.plant({"/etc/conf": "/outside/shadow", "/usr/share": "/outside", "/lib/libx.so": OLD})
        os.chown(there.jail / "usr/share", 1234, 1234, follow_symlinks=False)
        there.trial(
            {"/etc/conf": "type", "/usr/share": "unsafe", "/lib/libx.so": "differs"},
            says="chown -h root",
            mend=lambda: os.chown(there.jail / "usr/share", 0, 0, follow_symlinks=False),
        )

    with_private_mounts(prove)


def test_what_lies_in_the_lower_layer_of_an_overlay_is_repaired(arena: Arena) -> None:
    def prove() -> None:
        arena.plant({"/etc/conf": OLD, "/var": b"no directory"})
        place = arena.top.parent / f"{arena.top.name}-layers"
        upper, work, merged = (place / name for name in ("upper", "work", "merged"))
        for path in (place, upper, work, merged):
            path.mkdir(mode=0o755)
        mount("-t", "overlay", "-o", f"lowerdir={arena.top},upperdir={upper},workdir={work}", "overlay", merged)
        there = Arena(merged, arena.tally, there=True)
        for directory in (there.image, there.image / "jail", there.jail):
            directory.chmod(0o755)  # now it is in the upper layer, which would change it later
        there.host({"/var/conf": NEW})
        there.rule(files=["/etc/conf", "/var/conf"])
        with arena.untouched(inside=True):
            there.trial({"/etc/conf": "differs", "/var": "type", "/var/conf": "missing"})

    with_private_mounts(prove)


# --- What is mounted while a repair runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "over"),
    [
        ("outside", "etc"),
        ("jail/two/etc", "etc"),
        ("outside/conf", "etc/conf"),
        ("jail/two/etc/calm", "etc/conf"),
    ],
)
def test_what_is_mounted_between_check_and_repair_is_not_written_beneath(arena: Arena, what: str, over: str) -> None:
    def prove() -> None:
        arena.tally.add("case")
        arena.plant({"/etc/conf": OLD})
        with task(arena.image, [rule(files=("/etc/conf",))]) as (work, writer):
            found = check(work)
            assert drifts(found)
            with arena.untouched():
                bind(arena.image / what, arena.jail / over)
                repair(work, writer, found)
                umount(arena.jail / over)
        assert arena.fix().code == 0
        assert arena.check().kinds == {}

    with_private_mounts(prove)
