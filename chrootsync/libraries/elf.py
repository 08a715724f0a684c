"""What the dynamic loader wants to know of an ELF file: elf(5).

It is read by hand: few numbers matter, all of them in tables whose rows are of one length. An ELF reader for all
purposes takes longer to be imported than all libraries of a chroot to be read; it finds versions by section headers,
which the loader never looks at; and a dynamic section or a text without an end keeps it busy for minutes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat, takewhile
from typing import Literal, NamedTuple

from chrootsync.model.frozen import field, frozen

ET_EXEC, ET_DYN = 2, 3
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
MAX_PROGRAM_HEADERS = 512
MAX_TAGS = 4096
MAX_STRING = 4096
MAX_FILE_NAME = 255
MAX_SYMBOLS = 1 << 20
MAX_VERSIONS = 1 << 16
MAX_NAME = 1 << 16
MAX_NAMES = 128 << 20
DT_NEEDED, DT_STRTAB, DT_RPATH, DT_RUNPATH = 1, 5, 15, 29

# The tags that are no texts, by their names in elf.h; MIPS has one of its own among its numbers.
TAGS = {
    2: "DT_PLTRELSZ",
    4: "DT_HASH",
    5: "DT_STRTAB",
    6: "DT_SYMTAB",
    7: "DT_RELA",
    8: "DT_RELASZ",
    17: "DT_REL",
    18: "DT_RELSZ",
    20: "DT_PLTREL",
    23: "DT_JMPREL",
    0x6FFFFEF5: "DT_GNU_HASH",
    0x6FFFFFF0: "DT_VERSYM",
    0x6FFFFFFB: "DT_FLAGS_1",
    0x6FFFFFFC: "DT_VERDEF",
    0x6FFFFFFE: "DT_VERNEED",
}
MIPS = 8
MIPS_TAGS = {0x70000011: "DT_MIPS_SYMTABNO"}
DF_1_NODEFLIB = 0x800
EF_ARM_ABI_FLOAT_HARD = 0x400
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE = 1, 2, 10
STT_TLS = 6
STV_INTERNAL, STV_HIDDEN = 1, 2
DT_RELA = 7

# The types that a lookup accepts: NOTYPE, OBJECT, FUNC, COMMON, TLS, GNU_IFUNC (dl-lookup.c).
FOUND_TYPES = frozenset({0, 1, 2, 5, STT_TLS, 10})

# The machines whose 64-bit DT_HASH has 64-bit words, against the gABI: s390x and alpha (glibc's bits/elfclass.h).
WIDE_HASHES = frozenset({22, 0x9026})


class BadElfError(Exception):
    """A file that the loader would refuse; the text is a clause without the path."""


@frozen
class Machine:
    """Whom a file is made for: two files work together where these are equal. ``number`` is e_machine."""

    bits: int
    order: Literal["little", "big"]
    number: int


@frozen
class Load:
    """A part of a file that the loader maps: ``size`` bytes at ``offset`` of the file come to lie at ``address``."""

    address: int
    offset: int
    size: int


@frozen
class Elf:
    """The dynamic section of a file. ``runpath`` is None where it has none: an empty one still disables RPATHs.

    ``numbers`` holds the tags that are not texts by their names in elf.h; addresses among them are those of ``loads``.
    """

    machine: Machine
    hard_float: bool = False
    needed: tuple[str, ...] = ()
    rpath: str = ""
    runpath: str | None = None
    default_directories: bool = True
    interpreter: str | None = None
    loads: tuple[Load, ...] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)


def machine(data: bytes) -> Machine:
    """Whom a file is made for. Raises BadElfError."""
    if len(data) < 52 or not data.startswith(b"\x7fELF"):
        raise BadElfError("is not an ELF file")
    bits = {1: 32, 2: 64}.get(data[4])
    order = _order(data[5])
    if bits is None or order is None:
        raise BadElfError("has a broken ELF header")
    return Machine(bits=bits, order=order, number=int.from_bytes(data[18:20], order))


def _order(code: int) -> Literal["little", "big"] | None:
    if code == 1:
        return "little"
    return "big" if code == 2 else None


def parse(data: bytes) -> Elf:
    """What a shared library or program says to the loader. Raises BadElfError, whatever the file holds."""
    made_for = machine(data)
    try:
        return _read(data, made_for)
    except (struct.error, ValueError, LookupError, ArithmeticError) as error:
        raise BadElfError("is a damaged ELF file") from error


class _Header(NamedTuple):
    """What matters of an ELF header: at ``place`` begin the ``rows`` of program headers, each of ``size`` bytes."""

    kind: int
    place: int
    flags: int
    size: int
    rows: int


class _Segment(NamedTuple):
    """What matters of a program header."""

    kind: int
    offset: int
    address: int
    length: int


def _head(data: bytes, made_for: Machine, order: str) -> _Header:
    """The ELF header. Sections are nothing to the loader, and so nothing here."""
    layout = struct.Struct(order + ("16xH14xQ8xI2xHH6x" if made_for.bits == 64 else "16xH10xI4xI2xHH6x"))
    if len(data) < layout.size:
        raise BadElfError("is a truncated ELF file")
    return _Header(*layout.unpack_from(data))


def _segments(data: bytes, head: _Header, made_for: Machine, order: str) -> list[_Segment]:
    """The program headers, once they are found to be sane."""
    row = struct.Struct(order + ("I4xQQ8xQ16x" if made_for.bits == 64 else "III4xI12x"))
    if head.size != row.size or not 0 < head.rows <= MAX_PROGRAM_HEADERS:
        raise BadElfError("has a broken ELF header")
    table = data[head.place : head.place + head.rows * head.size]
    if len(table) < head.rows * head.size:
        raise BadElfError("is a truncated ELF file")
    return [_Segment(*numbers) for numbers in row.iter_unpack(table)]


def _read(data: bytes, made_for: Machine) -> Elf:
    order = "<" if made_for.order == "little" else ">"
    head = _head(data, made_for, order)
    segments = _segments(data, head, made_for, order)
    if head.kind not in (ET_EXEC, ET_DYN):
        raise BadElfError("is neither a shared library nor a program")
    kinds = {segment.kind: segment for segment in segments}  # the loader takes the last of a kind, too
    loads = tuple(_load(segment, len(data)) for segment in segments if segment.kind == PT_LOAD)
    interpreter = kinds.get(PT_INTERP)
    dynamic = kinds.get(PT_DYNAMIC)
    tags = _tags(data, dynamic.offset, made_for) if dynamic else []
    names = TAGS | MIPS_TAGS if made_for.number == MIPS else TAGS
    numbers = {names[tag]: value for tag, value in tags if tag in names}
    texts = _texts(data, tags, loads)
    return Elf(
        machine=made_for,
        hard_float=bool(head.flags & EF_ARM_ABI_FLOAT_HARD),
        needed=tuple(map(_file_name, texts.get(DT_NEEDED, ()))),
        rpath=next(iter(texts.get(DT_RPATH, ())), ""),
        runpath=next(iter(texts.get(DT_RUNPATH, ())), None),
        default_directories=not numbers.get("DT_FLAGS_1", 0) & DF_1_NODEFLIB,
        interpreter=_text(data, interpreter.offset) if interpreter else None,
        loads=loads,
        numbers=numbers,
    )


def _load(segment: _Segment, length: int) -> Load:
    found = Load(address=segment.address, offset=segment.offset, size=segment.length)
    if found.offset + found.size > length:
        raise BadElfError("is a truncated ELF file")  # the loader would map it, the daemon die of SIGBUS
    return found


def _tags(data: bytes, start: int, made_for: Machine) -> list[tuple[int, int]]:
    """The entries of a dynamic section up to the one that ends it."""
    row = struct.Struct(("<" if made_for.order == "little" else ">") + ("QQ" if made_for.bits == 64 else "II"))
    count = min(MAX_TAGS, max(len(data) - start, 0) // row.size)
    rows = row.iter_unpack(memoryview(data)[start : start + count * row.size])
    tags: list[tuple[int, int]] = list(takewhile(lambda entry: entry[0] != 0, rows))
    if len(tags) == count:
        raise BadElfError("has a dynamic section without an end")
    return tags


def _texts(data: bytes, tags: Sequence[tuple[int, int]], loads: Sequence[Load]) -> dict[int, list[str]]:
    """The texts of the tags that matter here; their numbers are places in the table that DT_STRTAB names."""
    places = [(tag, value) for tag, value in tags if tag in {DT_NEEDED, DT_RPATH, DT_RUNPATH}]
    texts: dict[int, list[str]] = {}
    strings = place_of(loads, dict(tags).get(DT_STRTAB, 0)) if places else 0
    for tag, value in places:
        texts.setdefault(tag, []).append(_text(data, strings + value))
    return texts


def _text(data: bytes, start: int) -> str:
    end = data.find(b"\0", start, start + MAX_STRING)
    if end < 0:
        raise BadElfError("has a broken string table")
    return os.fsdecode(data[start:end])


def _file_name(text: str) -> str:
    if not text or ("/" not in text and len(os.fsencode(text)) > MAX_FILE_NAME):
        raise BadElfError("has a broken string table")
    return text


def place_of(loads: Sequence[Load], address: int) -> int:
    """Where in a file the thing lies that is mapped at an address."""
    for load in loads:
        if load.address <= address < load.address + load.size:
            return load.offset + address - load.address
    raise BadElfError("has a table outside the file")


class Tables:
    """The tables of one file; it reads no more names and entries than any library has."""

    def __init__(self, data: bytes, elf: Elf) -> None:
        """Read from ``data``, which was parsed to ``elf``."""
        self._data = data
        self._order = "<" if elf.machine.order == "little" else ">"
        self._names_left = MAX_NAMES
        self._entries_left = MAX_VERSIONS
        self.elf = elf
        self.wide = elf.machine.bits == 64
        self._strings = self.place("DT_STRTAB") or 0

    def place(self, tag: str) -> int | None:
        """Where in the file a table begins; None where the dynamic section does not name it."""
        address = self.elf.numbers.get(tag)
        return None if address is None else place_of(self.elf.loads, address)

    def unpack(self, layout: str, place: int) -> tuple[int, ...]:
        """Numbers at a place. Raises struct.error beyond the end of the file."""
        return struct.unpack_from(self._order + layout, self._data, place)

    def rows(self, layout: str, place: int, count: int) -> Iterator[tuple[int, ...]]:
        """The entries of a table; one that the file does not hold as a whole is refused."""
        row = struct.Struct(self._order + layout)
        end = place + count * row.size
        if end > len(self._data):
            raise BadElfError("has a table outside the file")
        return row.iter_unpack(memoryview(self._data)[place:end])

    def chain(self, layout: str, place: int | None) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The entries of a list with their places; the last number of each tells how far the next one is, or 0."""
        while place is not None:
            self._entries_left -= 1
            if self._entries_left < 0:
                raise BadElfError("has too many versions")
            entry = self.unpack(layout, place)
            yield place, entry
            place = place + entry[-1] if entry[-1] else None

    def name(self, offset: int) -> bytes:
        """A name of the string table."""
        start = self._strings + offset
        end = self._data.find(b"\0", start, start + MAX_NAME)
        self._names_left -= end - start
        if end < 0 or self._names_left < 0:
            raise BadElfError("has a broken string table")
        return self._data[start:end]


class Symbol(NamedTuple):
    """An entry of the symbol table; ``version`` is its entry in the version table, 0 where there is none."""

    name: int
    info: int
    other: int
    section: int
    value: int
    version: int

    @property
    def is_local(self) -> bool:
        """Whether it is bound within its own file, be it needed or had."""
        return self.info >> 4 == 0 or self.other & 3 in {STV_INTERNAL, STV_HIDDEN}

    @property
    def is_needed(self) -> bool:
        """Whether the loader fails where it does not find it.

        It looks once a relocation names the symbol, as one does for all but a few aliases that linkers keep.
        """
        return self.section == SHN_UNDEF and self.info >> 4 != STB_WEAK

    @property
    def is_had(self) -> bool:
        """Whether a lookup can end here (do_lookup_x)."""
        if self.section == SHN_UNDEF or self.info >> 4 not in {STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE}:
            return False
        kind = self.info & 15
        return kind in FOUND_TYPES and (self.value != 0 or self.section == SHN_ABS or kind == STT_TLS)


def symbols(tables: Tables) -> Iterator[Symbol]:
    """The dynamic symbols without the first one, which is none."""
    start = tables.place("DT_SYMTAB")
    if start is None:
        return
    count = _count(tables)
    versions = tables.place("DT_VERSYM")
    indexes = repeat((0,)) if versions is None else tables.rows("H", versions, count)
    rows = tables.rows("IBBHQQ" if tables.wide else "IIIBBH", start, count)
    for row, (version,) in islice(zip(rows, indexes, strict=False), 1, None):
        if tables.wide:
            name, info, other, section, value, _size = row
        else:
            name, value, _size, info, other, section = row
        yield Symbol(name, info, other, section, value, version)


def _count(tables: Tables) -> int:
    """How many dynamic symbols there are. No tag tells but MIPS's own; the loader has no use for it.

    Whatever it finds, it finds by a hash table; whatever it looks for, a relocation names.
    """
    count = tables.elf.numbers.get("DT_MIPS_SYMTABNO")
    if count is None:
        count = _hashed(tables)
    if count is None:
        count = _hashed_by_gnu(tables) or _relocated(tables)
    if count > MAX_SYMBOLS:
        raise BadElfError("has too many symbols")
    return count


def _hashed(tables: Tables) -> int | None:
    """The length of the chains of DT_HASH, which is that of the symbol table."""
    place = tables.place("DT_HASH")
    if place is None:
        return None
    long_words = tables.wide and tables.elf.machine.number in WIDE_HASHES
    return tables.unpack("QQ" if long_words else "II", place)[1]


def _hashed_by_gnu(tables: Tables) -> int:
    """The end of the last chain of DT_GNU_HASH; 0 where it has none.

    Symbols that are only needed lie before those in the table, which lie by bucket; the last one of a chain is odd.
    """
    place = tables.place("DT_GNU_HASH")
    if place is None:
        return 0
    buckets, first, masks, _shift = tables.unpack("IIII", place)
    place += 16 + masks * (8 if tables.wide else 4)
    last = max((head for (head,) in tables.rows("I", place, buckets)), default=0)
    if last < max(first, 1):
        return 0
    place += 4 * (buckets - first)
    while last < MAX_SYMBOLS and not tables.unpack("I", place + 4 * last)[0] & 1:
        last += 1
    return last + 1


def _relocated(tables: Tables) -> int:
    """One more than the last symbol that a relocation names."""
    numbers = tables.elf.numbers
    plt = "DT_RELA" if numbers.get("DT_PLTREL") == DT_RELA else "DT_REL"
    last = 0
    for tag, length, kind in (
        ("DT_RELA", "DT_RELASZ", "DT_RELA"),
        ("DT_REL", "DT_RELSZ", "DT_REL"),
        ("DT_JMPREL", "DT_PLTRELSZ", plt),
    ):
        place = tables.place(tag)
        if place is None:
            continue
        layout = ("Q" if tables.wide else "I") * (3 if kind == "DT_RELA" else 2)
        rows = tables.rows(layout, place, numbers.get(length, 0) // struct.calcsize("=" + layout))
        last = max(last, max((row[1] for row in rows), default=0) >> (32 if tables.wide else 8))
    return last + 1
