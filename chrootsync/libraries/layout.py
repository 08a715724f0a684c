"""Where the dynamic loader of a root looks for libraries, and where inside a chroot they therefore belong."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from chrootsync.libraries.elf import BadElfError, Elf, Machine, parse
from chrootsync.libraries.inputs import LIBRARY_LIMIT, Inputs
from chrootsync.model import UnreadableError

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")

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

# The releases from which Debian's own Postfix script keeps libraries flat in lib (and removes others, see `keeps`).
FLAT_SINCE = {"debian": (13,), "raspbian": (13,), "ubuntu": (25, 4)}


@dataclass(frozen=True, kw_only=True, slots=True)
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
    """The layout of a root: by its distribution, or where that is not told, by the directories that are there."""
    own = _reference(inputs)
    machine = own.machine if own else None
    triplet, platform = TRIPLETS.get(machine, ("", "")) if machine else ("", "")
    if own and own.hard_float and triplet == "arm-linux-gnueabi":
        triplet = "arm-linux-gnueabihf"
    directories, target, lib = _directories(inputs, machine, triplet)
    interpreter = (own.interpreter or "") if own else ""
    return Layout(
        machine=machine, directories=directories, target=target, lib=lib, platform=platform, interpreter=interpreter
    )


def _directories(inputs: Inputs, machine: Machine | None, triplet: str) -> tuple[tuple[str, ...], str, str]:
    """The loader's default directories, the one that copies go to, and $LIB."""
    release = _os_release(inputs)
    if _is_debian(inputs, release, triplet):
        own = f"/lib/{triplet}"
        return (own, f"/usr{own}", "/lib", "/usr/lib"), "/lib" if _is_flat(release) else own, own[1:]
    if "arch" in _names(release):
        return ("/usr/lib", "/lib", "/lib64", "/usr/lib64"), "/usr/lib", "lib"
    wide = machine is None or machine.bits == 64
    if wide and any(inputs.exists(path) for path in ("/lib64/libc.so.6", "/usr/lib64/libc.so.6")):
        return ("/lib64", "/usr/lib64", "/lib", "/usr/lib"), "/lib64", "lib64"
    return ("/lib", "/usr/lib"), "/lib", "lib"


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


def _os_release(inputs: Inputs) -> dict[str, str]:
    """The fields of os-release(5); empty where the file is missing or cannot be read."""
    try:
        data = inputs.first(OS_RELEASE) or b""
    except UnreadableError:
        return {}
    fields = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, mark, value = line.strip().partition("=")
        if mark and not name.startswith("#"):
            fields[name] = _unquote(value)
    return fields


def _unquote(value: str) -> str:
    try:
        return "".join(shlex.split(value, posix=True)[:1])
    except ValueError:
        return value


def _names(release: Mapping[str, str]) -> list[str]:
    """The distribution and those that it descends from."""
    return [release.get("ID", "linux"), *release.get("ID_LIKE", "").split()]


def _is_debian(inputs: Inputs, release: Mapping[str, str], triplet: str) -> bool:
    if not triplet:
        return False
    if {"debian", "ubuntu"}.intersection(_names(release)):
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
