"""What the conditions of rules ask of the host and of daemons, each looked up at most once and only when asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

from chrootsync import distribution, libraries
from chrootsync.model import AbsentError, FileType, Host, Libc, PathError
from chrootsync.model.frozen import frozen

T = TypeVar("T")


@frozen
class Settings:
    """All ``parameters`` that a daemon sees, expanded: their ``values`` by name, and each ``distinct`` one once.

    ``tables`` are those that some of them name, by the parameters and the types of tables that were asked for so far.
    """

    parameters: Mapping[str, str]
    values: Mapping[str, str]
    distinct: frozenset[str]
    tables: dict[tuple[tuple[str, ...], tuple[str, ...]], Sequence[str]]


@frozen
class Listing:
    """A host directory: its path without links, and the names of files and of directories in it, links followed."""

    real: str
    files: list[str]
    directories: list[str]


@frozen
class _Search:
    """Values in which an expression was sought, and those in which it was found."""

    seen: set[str]
    found: set[str]


def _once(look: Callable[[str], T]) -> Callable[[str], T]:
    """A lookup by path that is done once, also where it fails."""
    known: dict[str, T | PathError] = {}

    def once(path: str) -> T:
        if path not in known:
            try:
                known[path] = look(path)
            except PathError as error:
                known[path] = error
        found = known[path]
        if isinstance(found, PathError):
            raise found
        return found

    return once


class Facts:
    """One host as conditions see it, for all rules and all instances of a run.

    ``listing`` tells what a host directory holds, ``exists`` whether something is at a host path, links followed, and
    ``lines`` those of a host file: none where it is missing. Each raises PathError for a path that it is given.
    """

    def __init__(self, host: Host) -> None:
        """Look things up on ``host``."""
        self.host = host
        self.listing = _once(self._listing)
        self.exists = _once(self._exists)
        self.lines = _once(self._lines)
        self._settings: dict[int, Settings] = {}
        self._searches: dict[re.Pattern[str], _Search] = {}

    def settings(self, parameters: Mapping[str, str]) -> Settings:
        """A daemon's parameters, expanded once; most daemons of an instance share theirs."""
        known = self._settings.get(id(parameters))
        if known is None:
            values = dict(parameters.items())
            # The parameters are kept along, so that their id cannot become another's.
            distinct = frozenset(values.values())
            known = Settings(parameters=parameters, values=values, distinct=distinct, tables={})
            self._settings[id(parameters)] = known
        return known

    def fitting(self, pattern: re.Pattern[str], settings: Settings) -> set[str]:
        """The values of settings in which an expression is found; most defaults are those of all instances."""
        search = self._searches.setdefault(pattern, _Search(seen=set(), found=set()))
        new = settings.distinct - search.seen
        search.seen.update(new)
        search.found.update(value for value in new if pattern.search(value))
        return search.found & settings.distinct

    @cached_property
    def distributions(self) -> frozenset[str]:
        """ID and ID_LIKE of os-release(5). Raises UnreadableError."""
        return frozenset(distribution.lineage(distribution.release(self.host.root.read)))

    @cached_property
    def libc(self) -> Libc:
        """The C library of the root. Raises UnreadableError."""
        return libraries.libc(self.host.root, self.host.cache)

    def _listing(self, directory: str) -> Listing:
        root = self.host.root
        by_type: dict[FileType | None, list[str]] = {}
        for name, kind in root.names(directory):
            there = self._followed(f"{directory.rstrip('/')}/{name}") if kind is FileType.LINK else kind
            by_type.setdefault(there, []).append(name)
        none: list[str] = []
        files, directories = (by_type.get(kind, none) for kind in (FileType.FILE, FileType.DIRECTORY))
        return Listing(real=root.resolve(directory), files=files, directories=directories)

    def _followed(self, path: str) -> FileType | None:
        """What a link leads to; None for one that leads nowhere.

        What cannot be seen counts as a file: then it is told that it cannot be.
        """
        try:
            return self.host.root.state(path).type
        except AbsentError:
            return None
        except PathError:
            return FileType.FILE

    def _exists(self, path: str) -> bool:
        try:
            self.host.root.resolve(path)
        except AbsentError:
            return False
        return True

    def _lines(self, path: str) -> tuple[str, ...]:
        try:
            data = self.host.root.read(path)
        except AbsentError:
            return ()
        return tuple(data.decode("utf-8", "surrogateescape").split("\n"))
