"""What chrootsync reads of an image to know what its chroots need: none of it is to be trusted."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hostile.arena import ATTACKER, NEW, OLD, Arena
from tests.unit.machine import needs_root

FILES = {
    "/etc/passwd": b"root:x:0:0::/:/bin/sh\n",
    "/etc/group": b"root:x:0:\n",
    "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
    "/etc/nsswitch.conf": b"hosts: files dns\n",
    "/etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
    "/etc/ld.so.cache": b"glibc-ld.so.cache1.1" + bytes(40),
    "/lib/libc.so.6": b"\x7fELF",
    "/lib/libnss_dns.so.2": b"\x7fELF",
    "/var/lib/dpkg/info/conf.list": b"/etc/conf\n",
    "/etc/postfix/main.cf": b"queue_directory = /jail/post\n",
    "/etc/postfix/master.cf": b"smtp unix - - y - - smtp\n",
}


def stretched(path: Path, size: int) -> None:
    """A file of nothing."""
    path.touch()
    os.truncate(path, size)


THINGS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(bytes(range(256)) * 64),
    "an-endless-line": lambda path: path.write_bytes(b"x" * 3_000_000),
    "very-many-lines": lambda path: path.write_bytes(b"a:b=c\n" * 50_000),
    "a-terabyte": lambda path: stretched(path, 1 << 40),
    "a-fifo": os.mkfifo,
    "a-directory": lambda path: path.mkdir(),
    "a-loop": lambda path: path.symlink_to(path.name),
    "an-endless-device": lambda path: path.symlink_to("/dev/zero"),
}
MEMORY = 1 << 30  # bytes beyond what the test run has anyway


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("path", FILES)
def test_whatever_an_image_holds_a_check_and_a_repair_come_to_their_end(arena: Arena, path: str, thing: str) -> None:
    arena.tally.add("case")
    arena.host({**FILES, "/jail/post": None})
    arena.changes(arena.image / "jail/post")
    if os.geteuid() == 0:
        arena.host({"/dev": None})
        os.mknod(arena.image / "dev/zero", 0o020666, os.makedev(1, 5))
    arena.rule(files=["/etc/conf"], owner="root", group="root")
    arena.rule(nss=["hosts"], libraries=["libc.so.6"])
    arena.rule(filtered=["/etc/passwd"], when={"distribution": ["debian"]})
    arena.plant({"/etc/conf": OLD})
    place = arena.image / path[1:]
    place.unlink()
    THINGS[thing](place)
    with arena.untouched(inside=True):
        found = arena.said(arena.check())
    with arena.untouched():
        fixed = arena.said(arena.fix())
    assert "/etc/conf" in found.kinds
    assert fixed.code in (0, 1, 3)
    assert (arena.jail / "etc/conf").read_bytes() in (NEW, OLD)


ODD = "\x1b[2J\u202eevil\x07"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/passwd", f"{ODD}:x:{ATTACKER}:{ATTACKER}::/:\n"),
        ("/etc/group", f"{ODD}:x:{ATTACKER}:\n"),
        (f"/var/lib/dpkg/info/{ODD}.list", "/etc/conf\n"),
        ("/etc/postfix/main.cf", f"queue_directory = /jail/{ODD}\nmulti_instance_name = postfix-{ODD}\n"),
        ("/etc/postfix/main.cf", f"multi_instance_directories = /etc/{ODD}\nqueue_directory = /jail/post\n"),
        ("/etc/postfix/main.cf", f"queue_directory = ${{{ODD}}}\n{ODD}\n"),
        ("/etc/postfix/master.cf", f"smtp unix - - y - - {ODD}\n{ODD} unix\n"),
        ("/etc/nsswitch.conf", f"hosts: {ODD} dns\n"),
        ("/etc/ld.so.conf", f"include {ODD}\n/{ODD}\n"),
    ],
)
@needs_root
def test_whatever_an_image_calls_things_stays_text(arena: Arena, path: str, text: str) -> None:
    arena.tally.add("case")
    arena.host({**FILES, path: text.encode(), "/jail/post": None})
    arena.rule(files=["/etc/conf"], nss=["hosts"])
    arena.plant({"/etc/conf": OLD})
    os.chown(arena.jail / "etc/conf", ATTACKER, ATTACKER)
    for words in (["--format", "plain", "-v", "--diff"], ["--format", "json"], ["-q", "--format", "plain"]):
        with arena.untouched(inside=True):
            said = arena.said(arena.run("check", *words)).text
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", said)
