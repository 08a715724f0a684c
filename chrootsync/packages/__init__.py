"""Tells which package a host file belongs to: from the package databases of a root, and from rpm itself.

Databases that are plain files are read; no package manager is run for them. rpm's can be read by its own library
alone, so rpm is asked, and on the live host only: nothing of an image is run.

While a package is being unpacked its files are in place before its list of files is. Whoever waits for a package
manager to end relies on the owners of such files too, so each database is also asked what it is about to list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from chrootsync.model import Host, PathError, Reader
from chrootsync.packages import apk, dpkg, pacman, rpm
from chrootsync.packages.reading import Names

# Directories that a merged /usr has twice; which spelling a package uses is its own history.
MERGED = re.compile(r"(?:/usr)?(/(?:bin|sbin|lib|lib32|lib64|libx32|libo32)/.*)", re.DOTALL)

DATABASES: tuple[Callable[[Reader, Names], Mapping[bytes, str]], ...] = (dpkg.find, pacman.find, apk.find)
"""Every package database that can be read; one that the root does not have answers nothing."""


def owners(host: Host, paths: Iterable[str]) -> dict[str, str]:
    """The packages, as "name version", of those host paths that belong to one.

    A path counts in every spelling that a merged /usr gives it, and as the file that a link leads to.
    """
    places = {path: _places(host.root, path) for path in paths}
    names = _encoded(name for known in places.values() for place in known for name in _spellings(place))
    names -= {b"/"}  # which an empty line would name
    if not names:
        return {}
    found: dict[bytes, str] = {}
    for database in DATABASES:
        found = {**database(host.root, names), **found}
    answered = {path: owner for path, known in places.items() if (owner := _owner(known, found)) is not None}
    # rpm finds the other spellings by itself.
    asked = _encoded(place for path, known in places.items() if path not in answered for place in known)
    told = rpm.find(host, asked) if asked else {}
    return {path: owner for path, known in places.items() if (owner := answered.get(path) or _owner(known, told))}


def _places(reader: Reader, path: str) -> tuple[str, ...]:
    """The path itself first, then what it leads to."""
    try:
        return (path, reader.resolve(path))
    except PathError:
        return (path,)


def _spellings(path: str) -> Iterator[str]:
    yield path
    match = MERGED.fullmatch(path)
    if match:
        yield match[1]
        yield f"/usr{match[1]}"


def _encoded(names: Iterable[str]) -> Names:
    return frozenset(os.fsencode(name) for name in names)


def _owner(places: Iterable[str], found: Mapping[bytes, str]) -> str | None:
    """The owner of the first spelling that has one."""
    spellings = (os.fsencode(name) for place in places for name in _spellings(place))
    return next((found[name] for name in spellings if name in found), None)
