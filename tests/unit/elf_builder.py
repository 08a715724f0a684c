"""Makes ELF files and loader caches, small but real, for any class, byte order and machine: elf(5), dl-cache.h."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH, DT_FLAGS_1 = 0, 1, 5, 10, 15, 29, 0x6FFFFFFB
DT_HASH, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_REL, DT_RELSZ, DT_PLTRELSZ, DT_PLTREL, DT_JMPREL = (
    4,
    6,
    7,
    8,
    17,
    18,
    2,
    20,
    23,
)
DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED, DT_MIPS_SYMTABNO = (
    0x6FFFFEF5,
    0x6FFFFFF0,
    0x6FFFFFFC,
    0x6FFFFFFE,
    0x70000011,
)
X86_64, I386, ARM, AARCH64, S390X, MIPS = 62, 3, 40, 183, 22, 8
LOCAL, GLOBAL, WEAK, UNIQUE = 0, 1, 2, 10
FUNC, SECTION, TLS = 2, 3, 6


class Strings:
    """A string table that gives out offsets."""

    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


@dataclass(frozen=True, kw_only=True)
class Symbol:
    """A dynamic symbol; ``file`` is the library that is to have it, ``hidden`` marks it in the version table."""

    name: str
    version: str = ""
    file: str = ""
    defined: bool = False
    bind: int = GLOBAL
    kind: int = FUNC
    visibility: int = 0
    value: int = 0
    hidden: bool = False


def needs(name: str, file: str = "", *, bind: int = GLOBAL, visibility: int = 0) -> Symbol:
    """A symbol, perhaps with ``@VERSION``, that a library needs."""
    symbol, _, version = name.partition("@")
    return Symbol(name=symbol, version=version, file=file, bind=bind, visibility=visibility)


def has(
    name: str, *, bind: int = GLOBAL, kind: int = FUNC, visibility: int = 0, value: int = 1, hidden: bool = False
) -> Symbol:
    """A symbol, perhaps with ``@VERSION``, that a library has."""
    symbol, _, version = name.partition("@")
    return Symbol(
        name=symbol,
        version=version,
        defined=True,
        bind=bind,
        kind=kind,
        visibility=visibility,
        value=value,
        hidden=hidden,
    )


@dataclass(frozen=True, kw_only=True)
class VersionNeed:
    """A version that a library needs of another one; flag 2 makes it weak, and what is hidden has to match exactly."""

    file: str
    version: str
    flags: int = 0
    hidden: bool = False


def elf(
    needed: Sequence[str] = (),
    *,
    bits: int = 64,
    order: str = "<",
    machine: int = X86_64,
    rpath: str | None = None,
    runpath: str | None = None,
    no_default: bool = False,
    interpreter: str | None = None,
    flags: int = 0,
    symbols: Sequence[Symbol] = (),
    versions: Sequence[str | VersionNeed] = (),
    count_by: Sequence[int] = (DT_HASH,),
    shift: int = 0,
    tail: bytes = b"",
) -> bytes:
    """A shared library with a dynamic section, mapped by one segment; ``tail`` lies behind everything else.

    ``versions`` are those beside what the symbols name, as defined or needed. ``count_by`` are the tags that tell how
    many symbols there are: hash tables or relocations. ``shift`` is how far addresses are from file offsets.
    """
    word = "Q" if bits == 64 else "I"
    strings = Strings()
    tags = [(DT_NEEDED, strings.add(name)) for name in needed]
    tags += [(DT_RPATH, strings.add(rpath))] if rpath is not None else []
    tags += [(DT_RUNPATH, strings.add(runpath))] if runpath is not None else []
    tags += [(DT_FLAGS_1, 0x800)] if no_default else []
    tables: list[tuple[int, bytes]] = []
    if symbols or versions:
        numbers, tables = Tables(symbols, versions, strings, bits=bits, order=order, machine=machine).made(count_by)
        tags += numbers
    header, program, count = (64, 56, 3) if bits == 64 else (52, 32, 3)
    start = header + program * count
    length = (len(tags) + len(tables) + 3) * 2 * struct.calcsize(order + word)
    text = start + length
    body = strings.data
    for tag, contents in tables:
        body += bytes(-len(body) % 8)
        tags.append((tag, text + len(body) + shift))
        body += contents
    tags += [(DT_STRTAB, text + shift), (DT_STRSZ, len(strings.data)), (DT_NULL, 0)]
    dynamic = b"".join(struct.pack(order + word * 2, *tag) for tag in tags)
    name = (interpreter.encode() + b"\0") if interpreter else b""
    end = text + len(body)
    segments = [(PT_LOAD, 0, end + len(name) + len(tail)), (PT_DYNAMIC, start, length)]
    segments += [(PT_INTERP, end, len(name))] if name else [(PT_LOAD, 0, 0)]
    table = b"".join(_segment(bits, order, *segment, shift) for segment in segments)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    head = struct.pack(
        f"{order}HHI{word * 3}IHHHHHH", 3, machine, 1, 0, header, 0, flags, header, program, len(segments), 0, 0, 0
    )
    return ident + head + table + dynamic + body + name + tail


class Tables:
    """The tables of symbols and versions, as gABI chapter 5 and Drepper's "ELF Symbol Versioning" have them."""

    def __init__(
        self,
        symbols: Sequence[Symbol],
        versions: Sequence[str | VersionNeed],
        strings: Strings,
        *,
        bits: int,
        order: str,
        machine: int,
    ) -> None:
        """Give each version its index: those that are defined from 2 on, then those that are needed."""
        # DT_GNU_HASH wants what is only needed before the rest.
        self.symbols = sorted(symbols, key=lambda symbol: symbol.defined)
        self.strings = strings
        self.wide = bits == 64
        self.order = order
        self.machine = machine
        mine = [symbol.version for symbol in self.symbols if symbol.defined and symbol.version]
        mine += [version for version in versions if isinstance(version, str)]
        theirs = [version for version in versions if isinstance(version, VersionNeed)]
        named = [(need.file, need.version) for need in theirs]
        theirs += [
            VersionNeed(file=file, version=version)
            for file, version in dict.fromkeys((symbol.file, symbol.version) for symbol in self.symbols)
            if file and version and (file, version) not in named
        ]
        self.defined = list(dict.fromkeys(mine))
        self.needed = theirs
        keys = [("", version) for version in self.defined] + [(need.file, need.version) for need in theirs]
        self.indexes = {key: index for index, key in enumerate(keys, 2)}

    def made(self, count_by: Sequence[int]) -> tuple[list[tuple[int, int]], list[tuple[int, bytes]]]:
        """The tags with numbers, and those with tables."""
        tables = [(DT_SYMTAB, bytes(24 if self.wide else 16) + b"".join(map(self._symbol, self.symbols)))]
        numbers: list[tuple[int, int]] = []
        if self.indexes:
            tables.append((DT_VERSYM, self._pack("H", 0) + b"".join(map(self._index, self.symbols))))
        if self.defined:
            tables.append((DT_VERDEF, self._definitions()))
        if self.needed:
            tables.append((DT_VERNEED, self._needs()))
        for tag in count_by:
            if tag == DT_MIPS_SYMTABNO:
                numbers.append((tag, len(self.symbols) + 1))
            elif tag in {DT_HASH, DT_GNU_HASH}:
                tables.append((tag, self._hash() if tag == DT_HASH else self._gnu_hash()))
            else:
                contents = self._relocations(addend=tag != DT_REL)
                tables.append((tag, contents))
                size = {DT_RELA: DT_RELASZ, DT_REL: DT_RELSZ, DT_JMPREL: DT_PLTRELSZ}[tag]
                numbers += [(size, len(contents)), (DT_PLTREL, DT_RELA)]
        return numbers, tables

    def _pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def _symbol(self, symbol: Symbol) -> bytes:
        name, info, section = self.strings.add(symbol.name), symbol.bind << 4 | symbol.kind, int(symbol.defined)
        if self.wide:
            return self._pack("IBBHQQ", name, info, symbol.visibility, section, symbol.value, 0)
        return self._pack("IIIBBH", name, symbol.value, 0, info, symbol.visibility, section)

    def _index(self, symbol: Symbol) -> bytes:
        index = self.indexes[symbol.file, symbol.version] if symbol.version else 1
        return self._pack("H", index | (0x8000 if symbol.hidden else 0))

    def _definitions(self) -> bytes:
        """Verdef entries, each with its one Verdaux; the first is the base version, the name of the file."""
        found = b""
        for index, version in enumerate(["base", *self.defined], 1):
            following = 28 if index <= len(self.defined) else 0
            found += self._pack("HHHHIII", 1, int(index == 1), index, 1, 0, 20, following)
            found += self._pack("II", self.strings.add(version), 0)
        return found

    def _needs(self) -> bytes:
        """Verneed entries, each with its Vernaux entries behind it."""
        files = list(dict.fromkeys(need.file for need in self.needed))
        found = b""
        for file in files:
            needs = [need for need in self.needed if need.file == file]
            following = 16 + 16 * len(needs) if file != files[-1] else 0
            found += self._pack("HHIII", 1, len(needs), self.strings.add(file), 16, following)
            for need in needs:
                index = self.indexes[file, need.version] | (0x8000 if need.hidden else 0)
                name, step = self.strings.add(need.version), 16 if need != needs[-1] else 0
                found += self._pack("IHHII", 0, need.flags, index, name, step)
        return found

    def _hash(self) -> bytes:
        word = "Q" if self.wide and self.machine == S390X else "I"
        return self._pack(word * 3, 1, len(self.symbols) + 1, 0) + bytes(struct.calcsize(word)) * (
            len(self.symbols) + 1
        )

    def _gnu_hash(self) -> bytes:
        """One bucket with all that is defined; where nothing is, the table of binutils, which counts no symbol."""
        defined = sum(symbol.defined for symbol in self.symbols)
        first = len(self.symbols) + 1 - defined if defined else 1
        head = self._pack("IIIIQI" if self.wide else "IIIIII", 1, first, 1, 0, 0, first if defined else 0)
        return head + b"".join(self._pack("I", int(index == defined - 1)) for index in range(defined))

    def _relocations(self, *, addend: bool) -> bytes:
        """A relocation for each symbol."""
        word = "Q" if self.wide else "I"
        infos = [index << (32 if self.wide else 8) | 7 for index in range(1, len(self.symbols) + 1)]
        return b"".join(self._pack(word * (3 if addend else 2), *[0, info, 0][: 3 if addend else 2]) for info in infos)


def _segment(bits: int, order: str, kind: int, offset: int, size: int, shift: int) -> bytes:
    address = offset + shift
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", kind, 5, offset, address, address, size, size, 8)
    return struct.pack(order + "IIIIIIII", kind, offset, address, address, size, size, 5, 4)


def loader_cache(
    entries: Sequence[tuple[str, str, int]], *, order: str = "<", flags: int = 2, old: bool = False
) -> bytes:
    """An ld.so.cache of (name, path, capabilities), alone or behind the table of the old format."""
    strings = Strings()
    base = 48 + 24 * len(entries)
    rows = b"".join(
        struct.pack(order + "iIIIQ", 0x303, base + strings.add(name), base + strings.add(path), 0, capabilities)
        for name, path, capabilities in entries
    )
    head = b"glibc-ld.so.cache1.1" + struct.pack(order + "IIB3xI12x", len(entries), len(strings.data), flags, 0)
    new = head + rows + strings.data
    if not old:
        return new
    table = b"ld.so-1.7.0\0" + struct.pack(order + "I", len(entries)) + bytes(12 * len(entries))
    return table + bytes(-len(table) % 8) + new
