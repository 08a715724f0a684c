"""The database of pacman: a directory for each package with its list of files (pacman(8)).

The order in which pacman installs a package (lib/libalpm/add.c) is: the old version's directory is removed, the new one
is made, files are put into place (and the package's mtree into the directory), the list of files is written. So
there are new files without a list, which the mtree names; it comes first in every package that makepkg makes, and is
missing in others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from chrootsync.model import Reader
from chrootsync.packages.reading import LIST_LIMIT, Names, label, names_in, read

LOCAL = "/var/lib/pacman/local"

ESCAPE = re.compile(rb"\\([0-7]{3})")


def find(reader: Reader, names: Names) -> Mapping[bytes, str]:
    """The packages of those paths that pacman knows of.

    It names a package's directory NAME-VERSION-RELEASE and lists paths without their first slash.
    """
    found: dict[bytes, str] = {}
    relative = frozenset(name[1:] for name in names)
    for directory in names_in(reader, LOCAL):
        parts = directory.rsplit("-", 2)
        if len(parts) != 3:
            continue
        for path in relative.intersection(_files(reader, f"{LOCAL}/{directory}")):
            found.setdefault(b"/" + path, label(parts[0], f"{parts[1]}-{parts[2]}"))
    return found


def _files(reader: Reader, directory: str) -> Iterator[bytes]:
    """The lines of a package's list; while it is being written, which an empty line ends, those of its mtree too."""
    data = read(reader, f"{directory}/files")
    yield from data.split(b"\n")
    if not data.endswith(b"\n\n"):
        yield from _in_mtree(read(reader, f"{directory}/mtree"))


def _in_mtree(data: bytes) -> Iterator[bytes]:
    """The paths in a compressed mtree(5): lines like ``./usr/lib/x time=1.0 mode=644``, odd bytes in octal."""
    import zlib

    try:
        lines = zlib.decompressobj(wbits=31).decompress(data, LIST_LIMIT).split(b"\n")
    except zlib.error:
        return
    for line in lines:
        if line.startswith(b"./"):
            yield ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), line[2:].partition(b" ")[0])
