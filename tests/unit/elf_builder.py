"""Makes ELF files and loader caches, small but real, for any class, byte order and machine: elf(5), dl-cache.h."""

from __future__ import annotations

import struct
from collections.abc import Sequence

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH, DT_FLAGS_1 = 0, 1, 5, 10, 15, 29, 0x6FFFFFFB
X86_64, I386, ARM, AARCH64, S390X = 62, 3, 40, 183, 22


class Strings:
    """A string table that gives out offsets."""

    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, text: str) -> int:
        offset = len(self.data)
        self.data += text.encode() + b"\0"
        return offset


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
    tail: bytes = b"",
) -> bytes:
    """A shared library with a dynamic section, mapped by one segment; ``tail`` lies behind everything else."""
    word = "Q" if bits == 64 else "I"
    strings = Strings()
    tags = [(DT_NEEDED, strings.add(name)) for name in needed]
    tags += [(DT_RPATH, strings.add(rpath))] if rpath is not None else []
    tags += [(DT_RUNPATH, strings.add(runpath))] if runpath is not None else []
    tags += [(DT_FLAGS_1, 0x800)] if no_default else []
    header, program, count = (64, 56, 3) if bits == 64 else (52, 32, 3)
    start = header + program * count
    length = (len(tags) + 3) * 2 * struct.calcsize(order + word)
    text = start + length
    tags += [(DT_STRTAB, text), (DT_STRSZ, len(strings.data)), (DT_NULL, 0)]
    dynamic = b"".join(struct.pack(order + word * 2, *tag) for tag in tags)
    name = (interpreter.encode() + b"\0") if interpreter else b""
    end = text + len(strings.data)
    segments = [(PT_LOAD, 0, end + len(name) + len(tail)), (PT_DYNAMIC, start, length)]
    segments += [(PT_INTERP, end, len(name))] if name else [(PT_LOAD, 0, 0)]
    table = b"".join(_segment(bits, order, *segment) for segment in segments)
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    head = struct.pack(
        f"{order}HHI{word * 3}IHHHHHH", 3, machine, 1, 0, header, 0, flags, header, program, len(segments), 0, 0, 0
    )
    return ident + head + table + dynamic + strings.data + name + tail


def _segment(bits: int, order: str, kind: int, offset: int, size: int) -> bytes:
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", kind, 5, offset, offset, offset, size, size, 8)
    return struct.pack(order + "IIIIIIII", kind, offset, offset, offset, size, size, 5, 4)


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
