"""The database of apk: one file with all packages (apk(5)), written when a transaction ends."""

from __future__ import annotations

from collections.abc import Mapping

from chrootsync.model import Reader
from chrootsync.packages.reading import STATUS_LIMIT, Names, label, read, text

INSTALLED = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")


def find(reader: Reader, names: Names) -> Mapping[bytes, str]:
    """The packages of those paths that apk knows of.

    P: is a package, V: its version, F: a directory, R: a file in the directory named last.
    """
    found: dict[bytes, str] = {}
    data = next(filter(None, (read(reader, path, STATUS_LIMIT) for path in INSTALLED)), b"")
    package = version = directory = b""
    for line in data.split(b"\n"):
        tag, value = line[:2], line[2:]
        if tag == b"P:":
            package = value
        elif tag == b"V:":
            version = value
        elif tag == b"F:":
            directory = b"/" + value if value else b""
        elif tag == b"R:" and directory + b"/" + value in names:
            found.setdefault(directory + b"/" + value, label(text(package), text(version)))
    return found
