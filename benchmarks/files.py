"""Writes the files of data sets: with the modes that a host has, whatever the umask is."""

from __future__ import annotations

import os
from collections.abc import Sequence


def write(path: str, data: bytes) -> None:
    """Write a file that everybody may read, and make the directories on the way."""
    make_directory(os.path.dirname(path))
    with open(path, "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o644)


def make_directory(path: str) -> None:
    """Make a directory and its parents as a host has them; what is there stays as it is."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 -- as every directory of a host


def copies(base: str) -> list[str]:
    """The files below a chroot, as paths absolute from it."""
    found = (os.path.join(folder, name) for folder, _, names in os.walk(base) for name in names)
    return sorted(path.removeprefix(base) for path in found)


def write_list(path: str, items: Sequence[str]) -> str:
    """Write a list as peers read it, a NUL behind each item; gives its path."""
    with open(path, "wb") as file:
        file.write(b"".join(os.fsencode(item) + b"\0" for item in items))
    return path
