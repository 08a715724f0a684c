"""Where the dynamic loader of a root looks for libraries, and where inside a chroot they therefore belong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from posixpath import normpath

from chrootsync import distribution
from chrootsync.libraries.elf import BadElfError, Elf, Machine, parse
from chrootsync.libraries.inputs import LIBRARY_LIMIT, Inputs
from chrootsync.model import UnreadableError
from chrootsync.model.frozen import frozen

# Programs that tell which of several architectures is the root's own.
PROGRAMS = ("/bin/sh", "/usr/bin/env", "/sbin/ldconfig")

# Debian's multiarch names (wiki.debian.org/Multiarch/Tuples) and the loader's $PLATFORM.
TRIPLETS: Mapping[Machine, tuple[str, str]] = {
    Machine(bits=64, order="little", number=62): ("x86_64-linux-gnu", "x86_64"),
    Machine(bits=32, order="little", number=62): ("x86_64-linux-gnux32", "x86_64"),
    Machine(bits=32, order="little", number=3): ("i386-linux-gnu", "i686"),
    Machine(bits=64, order="little", number=183): ("aarch64-linux-gnu", "aarch64"),
    Machine(bits=32, order="little", number=40): ("arm-linux-gnueabi", "v7l"),
    Machine(bits=64, order="little", number=243): ("riscv64-linux-gnu", "riscv64"),
    Machine(bits=64, order="big", number=22): ("s390x-linux-gnu", "s390x"),
    Machine(bits=64, order="little", number=21): ("powerpc64le-linux-gnu", "powerpc64le"),
    Machine(bits=64, order="big", number=21): ("powerpc64-linux-gnu", "powerpc64"),
    Machine(bits=32, order="big", number=20): ("powerpc-linux-gnu", "powerpc"),
    Machine(bits=64, order="little", number=258): ("loongarch64-linux-gnu", "loongarch64"),
    Machine(bits=64, order="little", number=8): ("mips64el-linux-gnuabi64", "mips64"),
    Machine(bits=32, order="little", number=8): ("mipsel-linux-gnu", "mips"),
    Machine(bits=64, order="big", number=43): ("sparc64-linux-gnu", "sparc64"),
}

# The loader has its default directories in one row: dl-load.c, SYSTEM_DIRS.
LOADER_LIMIT = 4 << 20
LISTED = re.compile(rb"(?:/[\w.+-]+)+/\Z")
MAX_LISTED = 1000
MAX_PATH = 255

# The releases from which Debian's own Postfix script keeps libraries flat in lib (and removes others, see `keeps`).
FLAT_SINCE = {"debian": (13,), "raspbian": (13,), "ubuntu": (25, 4)}


@frozen
class Layout:
    """The loader's default directories in their order, and the one that copies go to; ``lib`` stands for $LIB."""

    machine: Machine | None
    directories: tuple[str, ...]
    target: str
    lib: str
    platform: str = ""
    interpreter: str = ""

    def keeps(self, name: str) -> bool:
        """Whether a library may lie in the target directory.

        Flat in Debian's lib, a libnss_files.so.2 makes the distribution's script delete the libraries beside it.
        """
        return not (self.target == "/lib" and self.directories[0] != "/lib" and name == "libnss_files.so.2")


def find(inputs: Inputs) -> Layout:
    """The layout of a root, as its loader tells it, or where that cannot be read, its distribution and directories."""
    own = _reference(inputs)
    machine = own.machine if own else None
    triplet, platform = TRIPLETS.get(machine, ("", "")) if machine else ("", "")
    if own and own.hard_float and triplet == "arm-linux-gnueabi":
        triplet = "arm-linux-gnueabihf"
    interpreter = (own.interpreter or "") if own else ""
    release = _release(inputs)
    directories = _told(inputs, interpreter) or _guessed(inputs, machine, triplet, release)
    flat = "/lib" in directories and _is_debian(inputs, release, triplet) and _is_flat(release)
    return Layout(
        machine=machine,
        directories=directories,
        target="/lib" if flat else directories[0],
        lib=directories[0].removeprefix("/usr").lstrip("/"),
        platform=platform,
        interpreter=interpreter,
    )


def _told(inputs: Inputs, interpreter: str) -> tuple[str, ...]:
    """The default directories that the loader's file holds: the longest row with the C library; () for none."""
    try:
        data = (inputs.read(interpreter, limit=LOADER_LIMIT) or b"") if interpreter.startswith("/") else b""
    except UnreadableError:
        return ()
    rows: list[list[str]] = [[]]
    expected = end = -1
    for _ in range(MAX_LISTED):
        end = data.find(b"/\0", end + 1)
        if end < 0:
            break
        start = max(data.rfind(b"\0", max(end - MAX_PATH, 0), end) + 1, end - MAX_PATH, 0)
        found = LISTED.search(data[start : end + 1])
        if found is None:
            continue
        if start + found.start() != expected:
            rows.append([])
        rows[-1].append(found[0].decode()[:-1])
        expected = end + 2
    return next((row for row in sorted(_plain(rows), key=len, reverse=True)[:5] if _holds_libc(inputs, row)), ())


def _plain(rows: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows that can be lists of library directories."""
    return [tuple(dict.fromkeys(row)) for row in rows if all("/lib" in path and normpath(path) == path for path in row)]


def _holds_libc(inputs: Inputs, directories: Sequence[str]) -> bool:
    try:
        return any(inputs.exists(f"{directory}/libc.so.6") for directory in directories)
    except UnreadableError:
        return False


def _guessed(inputs: Inputs, machine: Machine | None, triplet: str, release: Mapping[str, str]) -> tuple[str, ...]:
    """The default directories as distributions have them; of those that the loader may not look at, none hurts."""
    if _is_debian(inputs, release, triplet):
        return f"/lib/{triplet}", f"/usr/lib/{triplet}", "/lib", "/usr/lib"
    if "arch" in distribution.lineage(release):
        return "/usr/lib", "/lib", "/lib64", "/usr/lib64"
    wide = machine is None or machine.bits == 64
    if wide and any(inputs.exists(path) for path in ("/lib64/libc.so.6", "/usr/lib64/libc.so.6")):
        return "/lib64", "/usr/lib64", "/lib", "/usr/lib"
    return "/lib", "/usr/lib"


def _reference(inputs: Inputs) -> Elf | None:
    """A program of the root, else its C library; None where there is neither."""
    for path in chain(PROGRAMS, _libc_paths(inputs)):
        try:
            data = inputs.read(path, limit=LIBRARY_LIMIT)
            if data is not None:
                return parse(data)
        except (UnreadableError, BadElfError):
            continue  # a script, or damaged: the next one may tell
    return None


def _libc_paths(inputs: Inputs) -> Iterator[str]:
    """Where a libc.so.6 can be; listed late, since a root with a shell is done before."""
    known = [triplet for triplet, _platform in TRIPLETS.values()] + ["arm-linux-gnueabihf"]
    for directory in ("/lib", "/usr/lib"):
        yield from (f"{directory}/{name}/libc.so.6" for name in inputs.names(directory) if name in known)
    yield from (f"{directory}/libc.so.6" for directory in ("/lib64", "/usr/lib64", "/lib", "/usr/lib"))


def _release(inputs: Inputs) -> dict[str, str]:
    """The fields of os-release(5); empty where the file is missing or cannot be read."""
    try:
        return distribution.fields(inputs.first(distribution.PATHS) or b"")
    except UnreadableError:
        return {}


def _is_debian(inputs: Inputs, release: Mapping[str, str], triplet: str) -> bool:
    if not triplet:
        return False
    if {"debian", "ubuntu"}.intersection(distribution.lineage(release)):
        return True
    return not release and any(inputs.exists(f"{directory}/{triplet}/libc.so.6") for directory in ("/lib", "/usr/lib"))


def _is_flat(release: Mapping[str, str]) -> bool:
    """Whether copies go to lib itself: Debian 13 and later, testing (no VERSION_ID), Ubuntu 25.04 and later.

    Derivatives count their releases otherwise, so they get what works with the older and the newer script.
    """
    if not release:
        return False
    since = FLAT_SINCE.get(release.get("ID", ""))
    if since is None:
        return True
    parts = release.get("VERSION_ID", "").split(".")
    return not all(part.isdecimal() for part in parts) or tuple(int(part) for part in parts) >= since
