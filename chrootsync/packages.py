"""Tells which package a host file belongs to, from the package databases of a root; no package manager is run.

Read are dpkg's lists and status (dpkg(1)), pacman's local database (pacman(8)) and apk's installed file (apk(5)).

rpm keeps an SQLite database that only its own library reads; where it is to be asked, one more function in
``DATABASES`` is all that it takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from chrootsync.model import PathError, Reader

DPKG_INFO = "/var/lib/dpkg/info"
DPKG_STATUS = "/var/lib/dpkg/status"
PACMAN = "/var/lib/pacman/local"
APK = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")

LIST_LIMIT = 16 << 20
STATUS_LIMIT = 64 << 20

# Directories that a merged /usr has twice; which spelling a package uses is its own history.
MERGED = re.compile(r"(?:/usr)?(/(?:bin|sbin|lib|lib32|lib64|libx32|libo32)/.*)", re.DOTALL)

Names = frozenset[bytes]
"""The spellings of paths that are looked for, absolute."""


def owners(reader: Reader, paths: Iterable[str]) -> dict[str, str]:
    """The packages, as "name version", of those host paths that belong to one.

    A path counts in every spelling that a merged /usr gives it, and as the file that a link leads to.
    """
    spellings = {path: list(_spellings(reader, path)) for path in paths}
    names = frozenset(os.fsencode(name) for known in spellings.values() for name in known)
    if not names:
        return {}
    found: dict[bytes, str] = {}
    for database in DATABASES:
        found = {**database(reader, names), **found}
    return {
        path: owner
        for path, known in spellings.items()
        if (owner := next((found[os.fsencode(name)] for name in known if os.fsencode(name) in found), None))
    }


def _spellings(reader: Reader, path: str) -> Iterator[str]:
    """The path itself first, what it leads to last."""
    yield from _merged(path)
    try:
        resolved = reader.resolve(path)
    except PathError:
        return
    yield from _merged(resolved)


def _merged(path: str) -> Iterator[str]:
    yield path
    match = MERGED.fullmatch(path)
    if match:
        yield match[1]
        yield f"/usr{match[1]}"


def _dpkg(reader: Reader, names: Names) -> Mapping[bytes, str]:
    lists = [name for name in _names(reader, DPKG_INFO) if name.endswith(".list")]
    found: dict[bytes, str] = {}
    for name in lists:
        lines = _read(reader, f"{DPKG_INFO}/{name}", LIST_LIMIT).split(b"\n")
        for path in names.intersection(lines):
            found.setdefault(path, name.removesuffix(".list"))
    if not found:
        return {}
    status = b"\n\n" + _read(reader, DPKG_STATUS, STATUS_LIMIT)
    versions = {package: _dpkg_version(status, package) for package in set(found.values())}
    return {path: _label(package.partition(":")[0], versions[package]) for path, package in found.items()}


def _dpkg_version(status: bytes, package: str) -> str:
    """The version of a package (``name`` or ``name:architecture``) in dpkg's status; empty where it is not there."""
    name, _, architecture = os.fsencode(package).partition(b":")
    start = 0
    while (start := status.find(b"\n\nPackage: " + name + b"\n", start)) >= 0:
        start += 2
        end = status.find(b"\n\n", start)
        stanza = status[start : end if end >= 0 else None].split(b"\n")
        if not architecture or b"Architecture: " + architecture in stanza:
            return next((_text(line[9:]) for line in stanza if line.startswith(b"Version: ")), "")
    return ""


def _pacman(reader: Reader, names: Names) -> Mapping[bytes, str]:
    """pacman names a package's directory NAME-VERSION-RELEASE and lists paths without their first slash."""
    found: dict[bytes, str] = {}
    relative = frozenset(name[1:] for name in names)
    for directory in _names(reader, PACMAN):
        parts = directory.rsplit("-", 2)
        if len(parts) != 3:
            continue
        lines = _read(reader, f"{PACMAN}/{directory}/files", LIST_LIMIT).split(b"\n")
        for path in relative.intersection(lines):
            found.setdefault(b"/" + path, _label(parts[0], f"{parts[1]}-{parts[2]}"))
    return found


def _apk(reader: Reader, names: Names) -> Mapping[bytes, str]:
    """apk has one file: P: package, V: version, F: directory, R: file in the directory named last."""
    found: dict[bytes, str] = {}
    data = next(filter(None, (_read(reader, path, STATUS_LIMIT) for path in APK)), b"")
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
            found.setdefault(directory + b"/" + value, _label(_text(package), _text(version)))
    return found


DATABASES: tuple[Callable[[Reader, Names], Mapping[bytes, str]], ...] = (_dpkg, _pacman, _apk)
"""Every package database that can be asked; one that the root does not have answers nothing."""


def _names(reader: Reader, directory: str) -> list[str]:
    try:
        return [name for name, _type in reader.names(directory)]
    except PathError:
        return []


def _read(reader: Reader, path: str, limit: int) -> bytes:
    """The contents of a file; empty where it cannot be read, for a name that is missing is no reason to fail."""
    try:
        return reader.read(path, limit=limit)
    except PathError:
        return b""


def _label(name: str, version: str) -> str:
    return f"{name} {version}".rstrip()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape").strip()
