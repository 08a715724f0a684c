"""Whether libraries fit together: each symbol that one needs must be in the others, with its version.

Told as the dynamic loader tells it: ELF gABI, chapter 5 (symbol and hash tables); U. Drepper, "ELF Symbol Versioning"
(version tables); glibc's dl-version.c and dl-lookup.c for how names are matched. Like the loader it reads the tables to
which the dynamic section leads, and never a section header.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from chrootsync.libraries.closure import ALWAYS_MAPPED, MAX_LIBRARIES
from chrootsync.libraries.elf import BadElfError, Machine, Tables, parse, symbols

SHOWN = 200
"""How much of a name people are shown: those of C++ templates go on for pages."""

ET_REL, ET_CORE = 1, 4
VER_FLG_BASE, VER_FLG_WEAK = 1, 2
VERSYM_HIDDEN = 0x8000
OLDEST_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Binary:
    """A file as people know it, and its contents or what reads them: called once, and only if they are needed."""

    name: str
    contents: bytes | Callable[[], bytes]


Libraries = Mapping[str, Sequence[Binary]]
"""The files that others can mean by a name, in the loader's order; it passes over those for other machines."""


class Want(NamedTuple):
    """A symbol that a file needs. Without a version any will do; ``file`` is the library that had it at link time.

    ``strict`` forbids a definition without a version to stand in.
    """

    symbol: bytes
    version: bytes = b""
    file: str = ""
    strict: bool = False


class Version(NamedTuple):
    """A version that a file defines, or (``file`` is not empty) needs of another one."""

    name: bytes
    file: str = ""
    strict: bool = False
    weak: bool = False


UNVERSIONED = Version(b"")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a file needs of others, and what it has for them.

    ``versions`` is None where it defines none, and ``versioned`` tells whether its symbols have any at all. ``exact``
    are its symbols with their versions, ``general`` those without that stand in for any, ``plain`` those that
    do where no version is asked for.
    """

    machine: Machine
    is_program: bool
    needed: tuple[str, ...]
    required: tuple[Version, ...]
    wanted: tuple[Want, ...]
    versions: frozenset[bytes] | None
    versioned: bool
    exact: frozenset[tuple[bytes, bytes]]
    general: frozenset[bytes]
    plain: frozenset[bytes]

    def has(self, want: Want, *, named: bool) -> bool:
        """Whether a lookup finds a symbol here; ``named``: the need names this very library (check_match)."""
        if not want.version:
            return want.symbol in self.plain
        if not self.versioned:  # glibc aborts where the library that should have the version knows of none
            return not named and want.symbol in self.plain
        return (want.symbol, want.version) in self.exact or (not want.strict and want.symbol in self.general)


def is_elf(head: bytes) -> bool:
    """Whether a file, of which the first 18 bytes do, may be a library or a program.

    Object files and core dumps are none: the loader never sees them.
    """
    if not head.startswith(b"\x7fELF"):
        return False
    kind = int.from_bytes(head[16:18], "big" if head[5:6] == b"\2" else "little")
    return kind not in {ET_REL, ET_CORE}


def unfit(
    returning: Sequence[Binary],
    after: Libraries,
    *,
    staying: Sequence[Binary] = (),
    before: Libraries | None = None,
) -> list[str]:
    """Why the loader would not bind some files to the libraries that are there ``after`` a change: a clause for each.

    ``returning`` are the files that are put (back) there, ``staying`` those that stay as they are. ``before`` are the
    libraries that are there now. Of a file that stays only what it does not lack now is told, for otherwise
    the change does it no harm. For symbols without a version that holds for any library: a module may have them from
    the program that loads it, as Perl's do, and nothing in either tells.

    libc and the loader itself, which every process has mapped, serve all files. What libraries need in their turn is
    not looked at: whoever doubts them passes them as files too.

    glibc gives GLIBC_PRIVATE to all that its own parts share, whatever the release; so it is symbols that are
    compared and not versions alone. A symbol may have moved to another library (libpthread's went to libc): the loader
    looks in all that the file needs, not only in the library that had it (since glibc 2.30, bug 24741).
    """
    read: dict[Binary, Fit | None] = {}
    now = None if before is None else _Shelf(before, read)
    then = _Shelf(after, read)
    clauses = [_clause(binary, then, now, stays=False) for binary in returning]
    clauses += [_clause(binary, then, now, stays=True) for binary in staying]
    return [clause for clause in clauses if clause]


def _clause(binary: Binary, then: _Shelf, now: _Shelf | None, *, stays: bool) -> str | None:
    file = then.read(binary)
    if file is None:
        return None if stays else f"{binary.name} cannot be read as an ELF file"
    lacking = _lacking(file, then)
    first = next(lacking, None)
    if first is not None and now is not None:
        known = {lack for lack in _lacking(file, now) if stays or lack.by_program}
        left = (lack for lack in chain([first], lacking) if lack not in known)
        first, lacking = next(left, None), left
    if first is None:
        return None
    more = sum(1 for _ in lacking)
    return f"{binary.name} needs {first.text}" + (f", and {more} more" if more else "")


class _Lack(NamedTuple):
    """What a file does not get: a library, a symbol or a version.

    ``by_program`` tells that the program that loads the file may have it. Names are whole here: two of the same
    beginning are not the same.
    """

    name: str | bytes
    why: str
    version: bytes = b""
    by_program: bool = False

    @property
    def text(self) -> str:
        """For people."""
        version = f"@{_shown(self.version)}" if self.version else ""
        return f"{_shown(self.name)}{version}, which {_shown(self.why)}"


def _shown(name: str | bytes) -> str:
    text = os.fsdecode(name)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _lacking(file: Fit, shelf: _Shelf) -> Iterator[_Lack]:
    """What a file needs and does not get: libraries, symbols, and versions of which it names no symbol."""
    away = set()
    for name in dict.fromkeys((*file.needed, *(version.file for version in file.required))):
        found = shelf.find(name, file.machine)
        if isinstance(found, str):
            away.add(name)
            yield _Lack(name, found)
    told = set()
    for want in _unfound(file, shelf):
        if want.file in away or (away and not want.file):
            continue  # told already; one without a version may be in any library, so in one that is away too
        told.add((want.file, want.version))
        if want.file:
            yield _Lack(want.symbol, f"{want.file} does not have", want.version)
        else:
            by_program = not want.version and not file.is_program
            yield _Lack(want.symbol, "none of its libraries has", want.version, by_program)
    for version in file.required:
        if (version.file, version.name) not in told and _is_missing(version, shelf.find(version.file, file.machine)):
            yield _Lack(b"version " + version.name, f"{version.file} does not have")


def _is_missing(version: Version, found: Fit | str) -> bool:
    """Whether a library lacks a version; one that defines no versions at all is let pass (_dl_check_map_versions)."""
    if isinstance(found, str) or found.versions is None or version.weak:
        return False
    return version.name not in found.versions


def _unfound(file: Fit, shelf: _Shelf) -> Iterator[Want]:
    """The symbols that a file needs and that are nowhere."""
    scope = _scope(file, shelf)
    for want in file.wanted:
        named = shelf.find(want.file, file.machine) if want.file else None
        if not any(other.has(want, named=other is named) for other in scope):
            yield want


def _scope(file: Fit, shelf: _Shelf) -> list[Fit]:
    """Where the loader looks for the symbols of a file: in itself, in all that it needs, in what is always mapped."""
    scope = [file]
    queue = deque((*file.needed, *shelf.mapped))
    seen: set[str] = set()
    while queue and len(scope) < MAX_LIBRARIES:
        name = queue.popleft()
        if name in seen:
            continue
        seen.add(name)
        found = shelf.find(name, file.machine)
        if isinstance(found, Fit):
            scope.append(found)
            queue.extend(found.needed)
    return scope


class _Shelf:
    """The libraries that are there; each file is read once, and only when it is asked for."""

    def __init__(self, libraries: Libraries, files: dict[Binary, Fit | None]) -> None:
        """Serve from ``libraries``; ``files`` keeps what was read, for another shelf too."""
        self._libraries = libraries
        self._files = files
        self.mapped = [name for name in libraries if ALWAYS_MAPPED.fullmatch(name)]

    def read(self, binary: Binary) -> Fit | None:
        """What a file needs and has; None where it is no ELF file that the loader would take."""
        if binary not in self._files:
            contents = binary.contents if isinstance(binary.contents, bytes) else binary.contents()
            try:
                self._files[binary] = _read(contents)
            except BadElfError:
                self._files[binary] = None
        return self._files[binary]

    def find(self, name: str, machine: Machine) -> Fit | str:
        """The library of a name for a machine, or why there is none, as what follows "which"."""
        reason = "is not there"
        # A need with a slash in it is a path.
        for binary in self._libraries.get(name) or self._libraries.get(name.rpartition("/")[2], ()):
            found = self.read(binary)
            if found is None:
                return "cannot be read as an ELF file"
            if found.machine == machine:
                return found
            reason = "is for another machine"
        return reason


def _read(data: bytes) -> Fit:
    """What a file needs and has. Raises BadElfError, whatever it holds."""
    elf = parse(data)
    try:
        return _fit(Tables(data, elf))
    except struct.error as error:
        raise BadElfError("is a damaged ELF file") from error


def _fit(tables: Tables) -> Fit:
    defined = dict(_definitions(tables))
    needed = dict(_needs(tables))
    wanted: dict[Want, None] = {}
    exact: set[tuple[bytes, bytes]] = set()
    general: set[bytes] = set()
    plain: set[bytes] = set()
    versions = needed | defined
    for symbol in symbols(tables):
        if symbol.is_local or not (symbol.is_needed or symbol.is_had):
            continue
        name = tables.name(symbol.name)
        index = symbol.version & ~VERSYM_HIDDEN
        version = versions.get(index, UNVERSIONED)
        if symbol.is_needed:
            wanted[Want(name, version.name, version.file, version.strict)] = None
            continue
        hidden = bool(symbol.version & VERSYM_HIDDEN)
        if version.name:
            exact.add((name, version.name))
        elif not hidden:
            general.add(name)
        # The default version, else the oldest one, whether or not it is hidden.
        if not hidden or index <= OLDEST_VERSION:
            plain.add(name)
    wanted.pop(Want(b""), None)  # a register of SPARC's, nothing that is looked up
    return Fit(
        machine=tables.elf.machine,
        is_program=tables.elf.interpreter is not None,
        needed=tables.elf.needed,
        required=tuple(needed.values()),
        wanted=tuple(wanted),
        versions=frozenset(version.name for version in defined.values()) if "DT_VERDEF" in tables.elf.numbers else None,
        versioned="DT_VERSYM" in tables.elf.numbers,
        exact=frozenset(exact),
        general=frozenset(general),
        plain=frozenset(plain),
    )


def _definitions(tables: Tables) -> Iterator[tuple[int, Version]]:
    """The versions that a file defines, by index; its own name, which comes as the base version, is none."""
    for place, (_version, flags, index, _count, _hash, names, _next) in tables.chain(
        "HHHHIII", tables.place("DT_VERDEF")
    ):
        if not flags & VER_FLG_BASE:
            name = tables.unpack("I", place + names)[0]
            yield index & ~VERSYM_HIDDEN, Version(tables.name(name))


def _needs(tables: Tables) -> Iterator[tuple[int, Version]]:
    """The versions that a file needs of others, by index."""
    for place, (_version, _count, file, versions, _next) in tables.chain("HHIII", tables.place("DT_VERNEED")):
        library = os.fsdecode(tables.name(file))
        for _place, (_hash, flags, index, name, _step) in tables.chain("IHHII", place + versions):
            yield (
                index & ~VERSYM_HIDDEN,
                Version(
                    tables.name(name), library, strict=bool(index & VERSYM_HIDDEN), weak=bool(flags & VER_FLG_WEAK)
                ),
            )
