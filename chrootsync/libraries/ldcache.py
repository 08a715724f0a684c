"""Reads ld.so.cache, the loader's index of libraries, in the format that glibc writes since 2.2 (dl-cache.h)."""

from __future__ import annotations

import os
import struct

OLD_MAGIC = b"ld.so-1.7.0"
MAGIC = b"glibc-ld.so.cache1.1"
ENTRY = "iIIIQ"  # flags, name, path, operating system version, hardware capabilities
ORDERS = {2: "<", 3: ">"}
"""The byte orders that the two low bits of the flags tell; 0 is a cache from before they told."""


def parse(data: bytes) -> dict[str, list[str]]:
    """The paths for each library name, in the loader's order; empty for what is not such a cache.

    Entries for special hardware are left out: the general ones serve every machine.
    """
    data = data[_start(data) :]
    if not data.startswith(MAGIC) or len(data) < 48:
        return {}
    order = ORDERS.get(data[28] & 3) if data[28] & 3 else _guess(data)
    if order is None:
        return {}
    count = struct.unpack_from(order + "I", data, 20)[0]
    entry = struct.Struct(order + ENTRY)
    if 48 + count * entry.size > len(data):
        return {}
    found: dict[str, list[str]] = {}
    for _flags, name, path, _version, capabilities in entry.iter_unpack(data[48 : 48 + count * entry.size]):
        if capabilities == 0:
            _add(found, _string(data, name), _string(data, path))
    return found


def _start(data: bytes) -> int:
    """Where the new format begins: at once, or behind the table of the old one, aligned for its 64-bit numbers."""
    if not data.startswith(OLD_MAGIC):
        return 0
    for order in ("<I", ">I"):
        end: int = 16 + 12 * struct.unpack_from(order, data.ljust(16, b"\0"), 12)[0]
        for start in (end, (end + 3) & ~3, (end + 7) & ~7):
            if data.startswith(MAGIC, start):
                return start
    return 0


def _guess(data: bytes) -> str | None:
    """The byte order in which the header's numbers fit into the file."""
    for order in ("<", ">"):
        count, strings = struct.unpack_from(order + "II", data, 20)
        if 48 + 24 * count + strings <= len(data):
            return order
    return None


def _string(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + 4096)
    return os.fsdecode(data[offset:end]) if end > offset else ""


def _add(found: dict[str, list[str]], name: str, path: str) -> None:
    if name and path.startswith("/"):
        paths = found.setdefault(name, [])
        if path not in paths:
            paths.append(path)
