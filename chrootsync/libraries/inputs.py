"""What a result was worked out from, so that a later run can tell by a few stats whether it still holds."""

from __future__ import annotations

from collections.abc import Iterable

from chrootsync.model import AbsentError, FileType, Reader, UnreadableError

LIBRARY_LIMIT = 64 << 20
"""No shared library comes near this size; a larger file is not read."""

Identity = tuple[int, ...]


def identity(reader: Reader, path: str) -> Identity | None:
    """The identity of what is at a host path; None where nothing is. Raises UnreadableError."""
    try:
        return reader.state(path).identity
    except AbsentError:
        return None


def unchanged(reader: Reader, recorded: object) -> bool:
    """Whether everything in ``recorded``, as :meth:`Inputs.recorded` gave it, is as it was; False for anything odd."""
    if not isinstance(recorded, list):
        return False
    return all(isinstance(item, list) and len(item) == 2 and _same(reader, *item) for item in recorded)


def _same(reader: Reader, path: object, then: object) -> bool:
    if not isinstance(path, str) or not path.startswith("/"):
        return False
    try:
        now = identity(reader, path)
    except UnreadableError:
        return False
    return then is None if now is None else then == list(now)


class Inputs:
    """A reader that remembers the identity of everything that it was asked for, before it looks at the contents.

    ``complete`` turns False where something could not be seen: a result from such inputs is not worth keeping.
    """

    def __init__(self, reader: Reader) -> None:
        """Remember what is asked of ``reader``."""
        self._reader = reader
        self._seen: dict[str, Identity | None] = {}
        self._names: dict[str, dict[str, FileType] | None] = {}
        self.complete = True

    def recorded(self) -> list[list[object]]:
        """Every path that was looked at, with its identity, as JSON takes it."""
        return [[path, None if found is None else list(found)] for path, found in self._seen.items()]

    def exists(self, path: str) -> bool:
        """Whether something is at a path, links followed. Raises UnreadableError."""
        if path not in self._seen:
            try:
                self._seen[path] = identity(self._reader, path)
            except UnreadableError:
                self.complete = False
                raise
        return self._seen[path] is not None

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes | None:
        """The contents of a file; None where it is missing. Raises UnreadableError."""
        if not self.exists(path):
            return None
        try:
            return self._reader.read(path, limit=limit)
        except AbsentError:
            self.complete = False  # it went away between the two looks
            return None
        except UnreadableError:
            self.complete = False
            raise

    def resolve(self, path: str) -> str | None:
        """The path without links; None where nothing is. Raises UnreadableError."""
        if not self.exists(path):
            return None
        try:
            return self._reader.resolve(path)
        except AbsentError:
            self.complete = False
            return None
        except UnreadableError:
            self.complete = False
            raise

    def first(self, paths: Iterable[str]) -> bytes | None:
        """The contents of the first file that exists. Raises UnreadableError."""
        for path in paths:
            data = self.read(path)
            if data is not None:
                return data
        return None

    def holds(self, directory: str, name: str) -> bool:
        """Whether a directory lists a name; True as well where it cannot be listed, for then only trying tells.

        A directory's identity covers all the names that it lacks: one stat instead of one for each.
        """
        if directory not in self._names:
            self._names[directory] = self._list(directory)
        names = self._names[directory]
        return names is None or name in names

    def names(self, directory: str) -> Iterable[str]:
        """The names in a directory; empty where it is missing or cannot be listed."""
        self.holds(directory, "")
        return self._names[directory] or ()

    def _list(self, directory: str) -> dict[str, FileType] | None:
        try:
            return dict(self._reader.names(directory)) if self.exists(directory) else {}
        except AbsentError:
            return {}  # a file stands there: its identity is recorded
        except UnreadableError:
            return None
