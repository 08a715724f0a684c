"""A small machine on disk with three instances, all that can drift in two of them, and what may be found there later.

Everything that exists at a path is described by a Thing. A path may hold the old or the new one: nothing else, ever.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.unit.scenery import Tree, grow, make_directory

from .warm import Ended, Warm

ROOT = os.geteuid() == 0
STRANGER = 1234
TEMPORARY = ".chrootsync-"
INSTANCES = ("one", "two", "three")

RULES = """\
[ruleset]
service = "test"
description = "for tests"

[[rule]]
id = "test.files"
why = "a test wants them"
files = ["/etc/services", "/etc/hosts", "/etc/resolv.conf", "/etc/os-release"]

[[rule]]
id = "test.directory"
why = "a test wants it"
directories = ["/etc/app", "/etc/more"]

[[rule]]
id = "test.libraries"
why = "a test wants them"
files = ["/usr/lib/libx.so", "/usr/lib/plugins/liby.so"]

[[rule]]
id = "test.link"
why = "a test wants it"
links = [{ path = "/lib64", target = "usr/lib" }]

[[rule]]
id = "test.accounts"
why = "a test wants it"
filtered = ["/etc/passwd"]
"""
GONE = "/etc/more/gone"
"""What is needed no more once it is gone from the host, and goes because chrootsync put it there."""
DEVICE = """
[[rule]]
id = "test.device"
why = "a test wants it"
devices = [{ path = "/dev/null", type = "character", major = 1, minor = 3 }]
mode = "0666"
"""
HOST: Tree = {
    "/etc/services": b"smtp 25/tcp\n" * 40,
    "/etc/hosts": b"127.0.0.1 localhost\n",
    "/etc/resolv.conf": b"nameserver 192.0.2.1\n",
    "/etc/os-release": b"ID=test\n",
    "/etc/passwd": b"root:HASH:0:0::/root:/bin/sh\n",
    "/etc/app/main": b"main\n",
    "/etc/app/sub/deep": b"deep\n",
    "/etc/more/kept": b"needed\n",
    GONE: b"soon not needed any more\n",
    "/usr/lib/libx.so": b"\x7fELF one" * 40_000,
    "/usr/lib/plugins/liby.so": b"\x7fELF why",
}


class Thing(NamedTuple):
    """What is at a path; of a directory, what is in it does not belong to it."""

    kind: int
    mode: int
    owner: tuple[int, int]
    device: int
    mtime: int | None
    contents: bytes | None
    attributes: tuple[tuple[str, bytes], ...]


Picture = dict[str, Thing]
Inodes = dict[str, tuple[int, int]]


class Place:
    """A root with instances, configuration, rules and a state directory, which can be had anew."""

    def __init__(self, base: Path, warm: Warm) -> None:
        """Everything lies below ``base``; the root and the state directory may be mounts."""
        self.base, self.warm = base, warm
        self.root, self.state, self.config, self.rules = (base / name for name in ("root", "state", "config", "rules"))
        self.log = base / "log"
        self.arguments = (
            *("--root", str(self.root), "--state", str(self.state)),
            *("--config", str(self.config), "--rules", str(self.rules)),
        )

    # --- What is there ---

    def build(self) -> None:
        """Make three instances that are in sync and known, then let two of them drift."""
        make_directory(str(self.base))
        self.rules.mkdir(exist_ok=True)
        (self.rules / "test.toml").write_text(RULES + DEVICE * ROOT, encoding="utf-8")
        self.config.write_text("".join(map(table, INSTANCES)), encoding="utf-8")
        self.state.mkdir(mode=0o700, exist_ok=True)
        grow(self.root, {**HOST, **{f"/jail/{name}": None for name in INSTANCES}, "/jail/bystander/etc/hosts": b"mine"})
        ended = self.warm.run("check", "--fix", *self.arguments)
        assert ended.code == 0, ended
        drift(self.root)

    def picture(self) -> Picture:
        """All that is in the chroots, by path as from the root."""
        return {path: one for path, one in picture(self.root).items() if is_inside(path)}

    def inodes(self) -> Inodes:
        """(inode, ctime) of all that is in the chroots."""
        return {path: one for path, one in inodes(self.root).items() if is_inside(path)}

    def outside(self) -> tuple[Picture, Inodes]:
        """All that is outside the chroots, where nobody has to change anything."""
        seen = {path: one for path, one in picture(self.root).items() if not is_inside(path)}
        return seen, {path: one for path, one in inodes(self.root).items() if not is_inside(path)}

    def forgot(self) -> bool:
        """Whether what was remembered had to be set aside, as a file on a disk that could not be read."""
        return any(self.state.glob("state.db.bad-*"))

    def temporaries(self) -> list[str]:
        """What a run has made for itself and left behind, in the chroots and beside its state."""
        found = [path for path in picture(self.root) if is_temporary(path)]
        beside = [f"state{path}" for path in picture(self.state) if is_temporary(path)]
        return found + beside

    # --- What is done ---

    def fix(self, *options: str) -> Ended:
        """Repair."""
        return self.warm.run("check", "--fix", *options, *self.arguments)

    def check(self) -> Ended:
        """Compare."""
        return self.warm.run("check", *self.arguments)


def table(name: str) -> str:
    """An instance as the configuration file has it."""
    return f'[[instance]]\nname = "{name}"\nchroot = "/jail/{name}"\nrules = ["test"]\n'


def drift(root: Path) -> None:
    """Everything that can happen to files: to the host's, and to the copies of two instances."""
    one, two = root / "jail/one", root / "jail/two"
    rewrite(root / "etc/services", b"smtp 25/tcp\nsubmission 587/tcp\n" * 40)
    rewrite(root / "usr/lib/libx.so", b"\x7fELF two" * 40_000)
    (root / "etc/more/gone").unlink()
    for name in INSTANCES[2:]:
        shutil.copy2(root / "etc/services", root / f"jail/{name}/etc/services")
        shutil.copy2(root / "usr/lib/libx.so", root / f"jail/{name}/usr/lib/libx.so")
        (root / f"jail/{name}/etc/more/gone").unlink()
    rewrite(one / "etc/resolv.conf", b"an administrator's own\n")
    (one / "etc/hosts").chmod(0o600)
    shutil.rmtree(one / "etc/app")
    (one / "lib64").unlink()
    grow(one, {"/lib64": "elsewhere"})
    (one / "usr").chmod(0o700)
    grow(one, {"/var/own": b"nobody's but the daemon's\n"})
    (two / "etc/hosts").unlink()
    (two / "etc/resolv.conf").unlink()
    (two / "etc/os-release").unlink()
    shutil.rmtree(two / "etc/app")
    shutil.rmtree(two / "usr")
    grow(two, {"/etc/hosts": "/etc/passwd", "/etc/resolv.conf": 0o644, "/etc/os-release": None, "/etc/app": b"a file"})
    if ROOT:
        os.chown(one / "etc/passwd", STRANGER, STRANGER)
        os.chown(two / "etc", 0, STRANGER)
        (one / "dev/null").unlink()
        grow(one, {"/dev/null": b"what was thrown away\n"})
        shutil.rmtree(two / "dev")


def rewrite(path: Path, contents: bytes) -> None:
    """Replace a file as a package manager does: another inode, another time."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(contents)
    new.chmod(0o644)
    os.utime(new, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    new.rename(path)


def renew(base: Path, template: Path) -> None:
    """Bring back what is in ``template``, under inodes of its own."""
    for name in ("root", "state", "config", "rules"):
        empty(base / name)
        source = template / name
        if source.is_dir():
            (base / name).mkdir(exist_ok=True)
            copy(f"{source}/.", base / name)
        else:
            copy(str(source), base / name)
    remember(base / "state", base / "root")


def remember(state: Path, root: Path) -> None:
    """Let what is remembered be of a root that has been moved, so that what was put there is known to have been."""
    if (state / "state.db").exists():
        with closing(sqlite3.connect(state / "state.db", isolation_level=None)) as connection:
            connection.execute("UPDATE roots SET path = ?", (os.fsencode(root),))


def copy(source: str, to: Path) -> None:
    """Copy with everything, by cp(1): Python copies neither devices nor FIFOs."""
    subprocess.run(["cp", "-a", "--reflink=auto", source, to], check=True)


def empty(path: Path) -> None:
    """Remove what is there; of a directory, which may be a mount, what is in it."""
    if path.is_dir() and not path.is_symlink():
        for one in path.iterdir():
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            else:
                one.unlink()
    else:
        path.unlink(missing_ok=True)


# --- What is seen ---------------------------------------------------------------------------------------------------


def is_inside(path: str) -> bool:
    """Whether a path lies in a chroot."""
    return f"{path}/".startswith(tuple(f"/jail/{name}/" for name in INSTANCES))


def is_temporary(path: str) -> bool:
    """Whether something was made on the way to something else."""
    return f"/{TEMPORARY}" in path or path.endswith((".tmp", ".new"))


def picture(root: Path) -> Picture:
    """What is below a directory, by path; links are not followed."""
    return {path: thing(place) for path, place in walk(root)}


def inodes(root: Path) -> Inodes:
    """(inode, ctime) of what is below a directory, by path."""
    return {path: (status.st_ino, status.st_ctime_ns) for path, place in walk(root) for status in [os.lstat(place)]}


def walk(root: Path) -> list[tuple[str, str]]:
    """What is below a directory: paths from there and paths from here."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            place = os.path.join(folder, name)
            found.append((place.removeprefix(str(root)), place))
    return found


def thing(path: str) -> Thing:
    """What is at a path."""
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    contents = None
    if kind == stat.S_IFLNK:
        contents = os.readlink(os.fsencode(path))
    elif kind == stat.S_IFREG:
        with open(path, "rb") as file:
            contents = file.read()
    names = os.listxattr(path, follow_symlinks=False)
    return Thing(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        device=status.st_rdev,
        mtime=status.st_mtime_ns if kind == stat.S_IFREG else None,
        contents=contents,
        attributes=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names)),
    )


def torn(old: Picture, new: Picture, now: Picture) -> list[str]:
    """The paths that hold neither the whole old nor the whole new thing; temporaries apart."""
    paths = [path for path in sorted({*old, *new, *now}) if f"/{TEMPORARY}" not in path]
    return [
        f"{path}: {_short(now.get(path))}, was {_short(old.get(path))}, becomes {_short(new.get(path))}"
        for path in paths
        if now.get(path) not in (old.get(path), new.get(path))
        and not _being_dressed(old.get(path), new.get(path), now.get(path))
    ]


def _being_dressed(old: Thing | None, new: Thing | None, now: Thing | None) -> bool:
    """Whether a directory has got some of its metadata already: it is made, or changed, under its own name.

    Until it has all of them, a new one is its owner's alone.
    """
    if now is None or new is None or not (stat.S_ISDIR(now.kind) and stat.S_ISDIR(new.kind)):
        return False
    fresh = Thing(new.kind, 0o700, (os.geteuid(), os.getegid()), 0, None, None, ())
    ways = [fresh if old is None else old, new]
    return all(getattr(now, name) in [getattr(way, name) for way in ways] for name in ("mode", "owner", "attributes"))


def _short(thing: Thing | None) -> str:
    if thing is None:
        return "nothing"
    size = "" if thing.contents is None else f", {len(thing.contents)} bytes {thing.contents[:16]!r}"
    return f"{thing.kind:o} {thing.mode:04o} {thing.owner[0]}:{thing.owner[1]}{size}"
