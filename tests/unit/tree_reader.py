"""The real Reader over a temporary tree, keeping count of what is read, and a cache that lives in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

from chrootsync.model import FileType, Source, UnreadableError
from chrootsync.root import Root


class TreeReader(Root):
    """A root whose reads are counted.

    The paths in ``unreadable`` refuse to be read or listed, those in ``unseen`` even to be looked at, as for somebody
    without rights.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        unreadable: Iterable[str] = (),
        unseen: Iterable[str] = (),
    ) -> None:
        super().__init__(os.fspath(path))
        self.reads: list[str] = []
        self.unreadable = frozenset(unreadable)
        self.unseen = frozenset(unseen)

    def __del__(self) -> None:
        """Tests make many readers: their descriptors go with them."""
        if hasattr(self, "_trusting"):
            self.close()

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        if directory in self.unreadable:
            raise UnreadableError(directory, "permission denied")
        return super().names(directory)

    def source(self, path: str) -> Source:
        if path in self.unseen:
            raise UnreadableError(path, "permission denied")
        return super().source(path)

    def glance(self, path: str) -> Source:
        if path in self.unseen:
            raise UnreadableError(path, "permission denied")
        return super().glance(path)

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        self.reads.append(path)
        if path in self.unreadable:
            raise UnreadableError(path, "permission denied")
        return super().read(path, limit=limit)


class MemoryCache:
    """A Cache whose values go through JSON, as the real one's do."""

    def __init__(self) -> None:
        self.values: dict[str, tuple[str, str]] = {}

    def get(self, name: str, fingerprint: str) -> object | None:
        kept, value = self.values.get(name, ("", "null"))
        found: object = json.loads(value) if kept == fingerprint else None
        return found

    def put(self, name: str, fingerprint: str, value: object) -> None:
        self.values[name] = (fingerprint, json.dumps(value))


def plant(root: str | os.PathLike[str], files: Mapping[str, bytes | str]) -> None:
    """Write files below a directory: bytes are contents, a text is the target of a symbolic link."""
    for path, contents in files.items():
        place = os.path.join(root, path.lstrip("/"))
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if isinstance(contents, str):
            os.symlink(contents, place)
        else:
            with open(place, "wb") as file:
                file.write(contents)
