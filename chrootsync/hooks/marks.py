"""Tells files that ``install`` wrote, and nobody has edited since, from those of others.

One comment line of each file says who wrote it and gives the checksum of all the other lines.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum, auto

WORDS = "Written by chrootsync install, and removed by chrootsync uninstall. Rest of this file: sha256 "
LINE = re.compile(rb"^(?:#|//) " + re.escape(WORDS.encode()) + rb"([0-9a-f]{64})\n", re.MULTILINE)


class Author(Enum):
    """Whose a file is."""

    OURS = auto()
    EDITED = auto()
    FOREIGN = auto()


def marked(text: str, comment: str) -> bytes:
    """The text with the line that makes it ours: the first one, but for that which names the interpreter."""
    head, rest = "", text
    if text.startswith("#!"):
        head, newline, rest = text.partition("\n")
        head += newline
    data = text.encode("utf-8", "surrogateescape")
    line = f"{comment} {WORDS}{hashlib.sha256(data).hexdigest()}\n"
    return head.encode() + line.encode() + rest.encode("utf-8", "surrogateescape")


def author(data: bytes) -> Author:
    """Whose a file with these contents is."""
    found = LINE.search(data)
    if found is None:
        return Author.FOREIGN
    rest = data[: found.start()] + data[found.end() :]
    same = hashlib.sha256(rest).hexdigest().encode() == found[1]
    return Author.OURS if same else Author.EDITED
