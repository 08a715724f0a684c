"""What all package databases have in common: reading what may not be there, and names for people."""

from __future__ import annotations

from chrootsync.model import PathError, Reader

LIST_LIMIT = 16 << 20
STATUS_LIMIT = 64 << 20

Names = frozenset[bytes]
"""The spellings of paths that are looked for, absolute."""


def names_in(reader: Reader, directory: str) -> list[str]:
    """The names in a directory; none where it cannot be read."""
    try:
        return [name for name, _type in reader.names(directory)]
    except PathError:
        return []


def read(reader: Reader, path: str, limit: int = LIST_LIMIT) -> bytes:
    """The contents of a file; empty where it cannot be read, for a name that is missing is no reason to fail."""
    try:
        return reader.read(path, limit=limit)
    except PathError:
        return b""


def label(name: str, version: str) -> str:
    """A package as reports name it."""
    return f"{name} {version}".rstrip()


def text(value: bytes) -> str:
    """A value of a database."""
    return value.decode("utf-8", "surrogateescape").strip()
