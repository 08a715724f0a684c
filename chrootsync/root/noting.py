"""A root that notes what is asked of it: what a run depends on, and a watcher has to watch."""

from __future__ import annotations

from chrootsync.model import FileType, Source
from chrootsync.root.read import Root


class NotingRoot(Root):
    """Notes every host path that is looked up, found or not; every directory that is listed; configuration as read.

    What is looked at inside a chroot is not noted.
    """

    def __init__(self, path: str) -> None:
        """Open a root. Raises AbsentError, UnreadableError."""
        super().__init__(path)
        self.looked: set[str] = set()
        self.listed: set[str] = set()
        self.texts: dict[str, bytes] = {}

    def source(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root."""
        self.looked.add(path)
        return super().source(path)

    def glance(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root; a regular file stays closed until it is read."""
        self.looked.add(path)
        return super().glance(path)

    def note(self, path: str) -> None:
        """Another process has looked at a host path."""
        self.looked.add(path)

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """The contents of a host file of at most ``limit`` bytes."""
        self.looked.add(path)
        return super().read(path, limit=limit)

    def read_trusted(self, path: str) -> bytes:
        """The contents of a configuration file that only root could have written; of an image, any."""
        self.looked.add(path)
        self.texts[path] = text = super().read_trusted(path)
        return text

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a host directory."""
        self.listed.add(directory)
        return super().names(directory)

    def resolve(self, path: str) -> str:
        """The host path without links."""
        self.looked.add(path)
        return super().resolve(path)
