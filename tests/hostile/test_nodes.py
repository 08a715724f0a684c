"""What is no file: FIFOs, devices, sockets and directories, where a copy should be and where a source was."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, SECRET, Arena
from tests.unit.machine import needs_root


def listening(path: Path) -> None:
    """A socket, whose name may be longer than an address; what listens there is gone already."""
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def node(kind: int, major: int, minor: int) -> Callable[[Path], None]:
    """What makes a device."""
    return lambda path: os.mknod(path, kind | 0o666, os.makedev(major, minor))


THINGS: dict[str, Callable[[Path], None]] = {
    "a-fifo": lambda path: os.mkfifo(path, 0o666),
    "a-fifo-that-nobody-may-open": lambda path: os.mkfifo(path, 0),
    "a-socket": listening,
    "an-empty-directory": lambda path: path.mkdir(0o755),
    "a-directory-that-nobody-may-enter": lambda path: path.mkdir(0),
    "null": node(stat.S_IFCHR, 1, 3),
    "an-endless-device": node(stat.S_IFCHR, 1, 5),
    "a-device-that-blocks": node(stat.S_IFCHR, 5, 1),
    "a-device-that-is-not-there": node(stat.S_IFCHR, 240, 77),
    "a-disk": node(stat.S_IFBLK, 7, 250),
}
OWNERS = [pytest.param(0, id="roots"), pytest.param(ATTACKER, id="attackers")]
DIRECTORIES = ("an-empty-directory", "a-directory-that-nobody-may-enter")


@needs_root
@pytest.mark.parametrize(
    ("thing", "owner"),
    [
        pytest.param(thing, owner, id=f"{thing}-{'attackers' if owner else 'roots'}")
        for thing in THINGS
        for owner in (0, ATTACKER)
        if not (owner and thing in DIRECTORIES)
    ],
)
def test_what_stands_in_place_of_a_copy_is_replaced_and_never_opened(arena: Arena, thing: str, owner: int) -> None:
    arena.plant({"/etc": None})
    THINGS[thing](arena.jail / "etc/conf")
    arena.give_away("/etc/conf", owner=owner)
    arena.trial({"/etc/conf": "type"}, says="stands where a file should")
    assert (arena.jail / "etc/conf").read_bytes() == NEW


@needs_root
@pytest.mark.parametrize("thing", DIRECTORIES)
def test_a_directory_of_the_attackers_in_place_of_a_copy_is_not_even_listed(arena: Arena, thing: str) -> None:
    arena.plant({"/etc": None})
    THINGS[thing](arena.jail / "etc/conf")
    arena.give_away("/etc/conf")
    arena.trial({"/etc/conf": "unsafe"}, says="give it to root", mend=lambda: arena.give_away("/etc/conf", owner=0))


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("inside", ["a file", "a directory", "a link to a secret"])
def test_a_directory_that_is_not_empty_is_never_removed(arena: Arena, inside: str, owner: int) -> None:
    things: dict[str, bytes | str | None] = {
        "a file": b"mine",
        "a directory": None,
        "a link to a secret": "/outside/shadow",
    }
    arena.plant({"/etc/conf/thing": things[inside]})
    arena.give_away("/etc/conf", owner=owner)
    arena.trial(
        {"/etc/conf": "unsafe" if owner else "type"},
        says="give it to root" if owner else "move it away",
        mend=lambda: (arena.jail / "etc/conf").rename(arena.jail / "moved"),
    )
    assert os.path.lexists(arena.jail / "moved/thing")


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("thing", [*(thing for thing in THINGS if thing not in DIRECTORIES), "a-file"])
def test_what_stands_in_place_of_a_directory_is_replaced_and_never_opened(arena: Arena, thing: str, owner: int) -> None:
    if thing == "a-file":
        arena.plant({"/etc": b"no directory"})
    else:
        THINGS[thing](arena.jail / "etc")
    arena.give_away("/etc", owner=owner)
    arena.trial({"/etc": "type", "/etc/conf": "missing"}, says="stands where a directory should")


@needs_root
@pytest.mark.parametrize("thing", THINGS)
def test_what_is_no_file_is_no_source_and_the_copy_is_kept(arena: Arena, thing: str) -> None:
    arena.plant({"/etc/conf": OLD})
    source = arena.image / "etc/conf"
    source.unlink()
    THINGS[thing](source)

    def mend() -> None:
        assert (arena.jail / "etc/conf").read_bytes() == OLD
        if source.is_dir():
            source.rmdir()
        else:
            source.unlink()
        arena.host({"/etc/conf": NEW})

    arena.trial({"/etc/conf": "bad-source"}, says="the source is a .*, not a file", mend=mend)


@pytest.mark.parametrize("where", ["conf", "/nowhere", "/outside", None])
def test_a_source_that_leads_nowhere_is_none_and_the_copy_is_kept(arena: Arena, where: str | None) -> None:
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").unlink()
    if where is not None:
        arena.host({"/etc/conf": where})

    def mend() -> None:
        assert (arena.jail / "etc/conf").read_bytes() == OLD
        (arena.image / "etc/conf").unlink(missing_ok=True)
        arena.host({"/etc/conf": NEW})

    found = {"conf": "unreadable"}.get(where or "", "bad-source")
    arena.trial({"/etc/conf": found}, says="the source (cannot be seen|does not exist|is a directory)", mend=mend)


def test_an_empty_source_never_replaces_a_copy(arena: Arena) -> None:
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").write_bytes(b"")

    def mend() -> None:
        assert (arena.jail / "etc/conf").read_bytes() == OLD
        (arena.image / "etc/conf").write_bytes(NEW)

    arena.trial({"/etc/conf": "bad-source"}, says="the source is empty; the copy is kept", mend=mend)


def test_a_source_that_a_link_takes_into_the_chroot_is_not_copied_onto_itself(arena: Arena) -> None:
    arena.plant({"/etc/conf": OLD})
    (arena.image / "etc/conf").unlink()
    arena.host({"/etc/conf": "/jail/one/etc/conf"})

    def mend() -> None:
        (arena.image / "etc/conf").unlink()
        arena.host({"/etc/conf": NEW})

    arena.trial({"/etc/conf": "unsafe"}, says="put the original outside", mend=mend)


# --- What has no source -------------------------------------------------------------------------------------------

NULL = {"path": "/dev/null", "type": "character", "major": 1, "minor": 3}


@needs_root
@pytest.mark.parametrize("what", ["link", "secret", "file", "fifo", "disk", "other-numbers"])
def test_a_device_takes_the_place_of_whatever_is_not_it(arena: Arena, what: str) -> None:
    arena.rule(devices=[NULL])
    arena.plant({"/dev": None})
    place = arena.jail / "dev/null"
    make: dict[str, Callable[[], object]] = {
        "link": lambda: place.symlink_to("/outside/shadow"),
        "secret": lambda: place.symlink_to(arena.beyond / "shadow"),
        "file": lambda: place.write_bytes(b"collected"),
        "fifo": lambda: os.mkfifo(place),
        "disk": lambda: node(stat.S_IFBLK, 1, 3)(place),
        "other-numbers": lambda: node(stat.S_IFCHR, 1, 5)(place),
    }
    make[what]()
    arena.trial({"/dev/null": "differs" if what == "other-numbers" else "type"})
    assert os.stat(place).st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE(os.stat(place).st_mode) == 0o666


@needs_root
def test_a_device_of_the_attackers_is_made_roots(arena: Arena) -> None:
    arena.rule(devices=[NULL])
    arena.plant({"/dev": None})
    node(stat.S_IFCHR, 1, 3)(arena.jail / "dev/null")
    arena.give_away("/dev/null")
    arena.trial({"/dev/null": "metadata"}, says=f"owner {ATTACKER}, not 0")


@needs_root
@pytest.mark.parametrize("what", ["/outside", "../../outside", "attackers", "file", "fifo", "empty-directory"])
def test_a_link_takes_the_place_of_whatever_is_not_it(arena: Arena, what: str) -> None:
    arena.rule(links=[{"path": "/var/run", "target": "../run"}])
    trees: dict[str, bytes | str | int | None] = {
        "attackers": "../run",
        "file": b"collected",
        "fifo": 0o600,
        "empty-directory": None,
    }
    arena.plant({"/var": None, "/var/run": trees.get(what, what)})
    if what == "attackers":
        arena.give_away("/var/run")
    kinds = {"attackers": "metadata", "file": "type", "fifo": "type", "empty-directory": "type"}
    arena.trial({"/var/run": kinds.get(what, "differs")})
    assert os.readlink(arena.jail / "var/run") == "../run"


def test_a_directory_with_something_in_it_is_not_replaced_by_a_link(arena: Arena) -> None:
    arena.rule(links=[{"path": "/var/run", "target": "../run"}])
    arena.plant({"/var/run/socket": b"kept"})
    arena.trial(
        {"/var/run": "type"}, says="move it away", mend=lambda: shutil.move(arena.jail / "var/run", arena.jail / "old")
    )
    assert (arena.jail / "old/socket").read_bytes() == b"kept"


def test_a_link_that_a_rule_wants_may_lead_anywhere_and_is_not_followed(arena: Arena) -> None:
    arena.rule(links=[{"path": "/etc/conf", "target": f"../../..{arena.beyond}/shadow"}])
    arena.trial({"/etc": "missing", "/etc/conf": "missing"})
    assert (arena.beyond / "shadow").read_bytes() == SECRET


@pytest.mark.parametrize("what", ["/outside/shadow", b"no socket", 0o600])
def test_what_is_no_socket_is_told_and_left_alone(arena: Arena, what: str | bytes | int) -> None:
    arena.rule(sockets=["/dev/log"], severity="error")
    arena.plant({"/dev/log": what})

    def mend() -> None:
        (arena.jail / "dev/log").unlink()
        listening(arena.jail / "dev/log")

    arena.trial(
        {"/dev/log": "unreachable"},
        says="let its service listen inside the chroot",
        mend=mend,
    )
