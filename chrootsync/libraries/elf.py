"""What the dynamic loader wants to know of an ELF file: elf(5), read with pyelftools."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

PROGRAM_HEADER_SIZE = {32: 32, 64: 56}
MAX_PROGRAM_HEADERS = 512
MAX_TAGS = 4096
MAX_STRING = 4096
MAX_EMPTY = 2
TEXTS = {"DT_NEEDED": "needed", "DT_RPATH": "rpath", "DT_RUNPATH": "runpath", "DT_SONAME": "soname"}
DF_1_NODEFLIB = 0x800
EF_ARM_ABI_FLOAT_HARD = 0x400


class BadElfError(Exception):
    """A file that the loader would refuse; the text is a clause without the path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Whom a file is made for: two files work together where these are equal. ``number`` is e_machine."""

    bits: int
    order: Literal["little", "big"]
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Elf:
    """The dynamic section of a file. ``runpath`` is None where it has none: an empty one still disables RPATHs."""

    machine: Machine
    hard_float: bool = False
    needed: tuple[str, ...] = ()
    rpath: str = ""
    runpath: str | None = None
    default_directories: bool = True
    interpreter: str | None = None


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
    data = _without_sections(data, made_for)
    # Imported here: a host in sync needs no ELF reader, and it would double the time that such a check takes.
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError

    try:
        return _read(data, made_for)
    except (ELFError, ConstructError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError) as error:
        raise BadElfError("is a damaged ELF file") from error
    except (AssertionError, StopIteration, EOFError) as error:
        raise BadElfError("is a damaged ELF file") from error


def _without_sections(data: bytes, made_for: Machine) -> bytes:
    """The file with its section table struck out of the header, once the header is found to be sane.

    The loader never looks at sections, and a forged count of them would keep the ELF reader busy for hours.
    """
    wide = made_for.bits == 64
    offset, size = (40, 8) if wide else (32, 4)
    tail = 54 if wide else 42  # e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
    if len(data) < tail + 10:
        raise BadElfError("is a truncated ELF file")
    entry_size = int.from_bytes(data[tail : tail + 2], made_for.order)
    count = int.from_bytes(data[tail + 2 : tail + 4], made_for.order)
    if entry_size != PROGRAM_HEADER_SIZE[made_for.bits] or not 0 < count <= MAX_PROGRAM_HEADERS:
        raise BadElfError("has a broken ELF header")
    head = bytearray(data[: tail + 10])
    head[offset : offset + size] = bytes(size)
    head[tail + 4 : tail + 10] = bytes(6)
    return bytes(head) + data[tail + 10 :]


def _read(data: bytes, made_for: Machine) -> Elf:
    from elftools.elf.elffile import ELFFile

    file = ELFFile(io.BytesIO(data))
    if file.header["e_type"] not in {"ET_DYN", "ET_EXEC"}:
        raise BadElfError("is neither a shared library nor a program")
    tags: dict[str, list[Any]] = {}
    interpreter = None
    segment: Any
    for segment in file.iter_segments():
        kind = segment.header["p_type"]
        if kind == "PT_LOAD" and segment.header["p_offset"] + segment.header["p_filesz"] > len(data):
            raise BadElfError("is a truncated ELF file")  # the loader would map it, the daemon die of SIGBUS
        if kind == "PT_INTERP":
            interpreter = _text(segment.get_interp_name())
        elif kind == "PT_DYNAMIC" and not tags:
            tags = _tags(segment)
    return Elf(
        machine=made_for,
        hard_float=bool(file.header["e_flags"] & EF_ARM_ABI_FLOAT_HARD),
        needed=tuple(tags.get("DT_NEEDED", ())),
        rpath=next(iter(tags.get("DT_RPATH", ())), ""),
        runpath=next(iter(tags.get("DT_RUNPATH", ())), None),
        default_directories=not next(iter(tags.get("DT_FLAGS_1", ())), 0) & DF_1_NODEFLIB,
        interpreter=interpreter,
    )


def _tags(segment: Any) -> dict[str, list[Any]]:
    """The tags of a dynamic segment that matter here, texts as texts."""
    tags: dict[str, list[Any]] = {}
    last = ""
    empty = 0
    for tag in islice(segment.iter_tags(), MAX_TAGS):
        last = tag.entry.d_tag
        if last in TEXTS:
            text = _text(getattr(tag, TEXTS[last]))
            tags.setdefault(last, []).append(text)
            empty += not text
        elif last == "DT_FLAGS_1":
            tags.setdefault(last, []).append(int(tag.entry.d_val))
        if empty > MAX_EMPTY:  # the ELF reader gives these for a table without an end, after reading all of the file
            raise BadElfError("has a broken string table")
    if last != "DT_NULL":
        raise BadElfError("has a dynamic section without an end")
    return tags


def _text(value: str | bytes) -> str:
    text = os.fsdecode(value)
    if len(text) > MAX_STRING or "\0" in text:
        raise BadElfError("has a broken string table")
    return text
