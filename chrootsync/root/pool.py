"""The directories that walks keep open: a thousand chroots must do with the descriptors that a process may have."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from chrootsync.model import AbsentError, PathError, UnreadableError, clause

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})


class ExhaustedError(UnreadableError):
    """No more descriptors can be opened for now."""


def failure(path: str, error: OSError) -> PathError:
    """The error of the model that an OSError on a path means."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return AbsentError(path, "does not exist")
    kind = ExhaustedError if error.errno in EXHAUSTED else UnreadableError
    return kind(path, clause(error))


def clause_of(number: int) -> str:
    """What the error of that number says, as a clause."""
    return clause(OSError(number, os.strerror(number)))


def inode(status: os.stat_result) -> tuple[int, int]:
    """What tells one inode from every other: device and number."""
    return status.st_dev, status.st_ino


class Directory:
    """A directory (O_PATH) and its path from the walker's base, spelled without links.

    ``fd`` is -1 while it is closed, ``inode`` (device, inode) tells whether it is the same when it is opened again.
    ``keeper`` is the user who alone can change what is in it, None where others can, too.
    """

    __slots__ = ("fd", "inode", "keeper", "path")

    def __init__(self, fd: int, path: str, status: os.stat_result) -> None:
        """Take over ``fd``, whose status is ``status``."""
        self.fd = fd
        self.path = path
        self.inode = inode(status)
        self.keeper = None if status.st_mode & 0o022 else status.st_uid


class Pool:
    """The directories that all walks of a root keep open; the least recently used one is closed beyond ``most``.

    By default that is half of the descriptors that this process may have: the rest is for what is read. What is pinned
    stays open until it is closed; a quarter is left in any case for taking back what the pinned ones were needed for.
    """

    def __init__(self, most: int | None = None) -> None:
        """Keep ``most`` directories open, no fewer than a walk needs."""
        self._most = max(4, os.sysconf("SC_OPEN_MAX") // 2 if most is None else most)
        self._open: OrderedDict[Directory, None] = OrderedDict()
        self._pinned: set[Directory] = set()

    def keep(self, directory: Directory) -> None:
        """Take an open directory in, as the most recently used one."""
        self._open[directory] = None
        while len(self._open) + len(self._pinned) > self._most and len(self._open) > 2:
            self._close_oldest()

    def use(self, directory: Directory) -> None:
        """Make a directory the most recently used one, which is the last to be closed."""
        if directory in self._open:
            self._open.move_to_end(directory)

    def pin(self, directory: Directory) -> None:
        """Never close an open directory by itself. Raises ExhaustedError where too many are pinned."""
        if directory in self._pinned:
            return
        if len(self._pinned) >= self._most * 3 // 2:
            raise ExhaustedError(directory.path, clause_of(errno.EMFILE))
        self._open.pop(directory, None)
        self._pinned.add(directory)

    def close(self, directory: Directory) -> None:
        """Close a directory that is not needed any more; closing it twice does nothing."""
        self._open.pop(directory, None)
        self._pinned.discard(directory)
        if directory.fd >= 0:
            os.close(directory.fd)
            directory.fd = -1

    def make_room(self) -> bool:
        """Close half of what may be closed, never the most recently used; whether there was any."""
        count = len(self._open) // 2
        for _ in range(count):
            self._close_oldest()
        return count > 0

    def open(self, name: str, flags: int, directory: int | None = None) -> int:
        """Open a name, after making room for the descriptor where need be. Raises OSError."""
        try:
            return os.open(name, flags, dir_fd=directory)
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
        return self.insist(lambda: os.open(name, flags, dir_fd=directory))

    def insist(self, opening: Callable[[], int]) -> int:
        """The descriptor that ``opening`` opens, after making room for it where need be. Raises OSError."""
        while True:
            try:
                return opening()
            except OSError as error:
                if error.errno not in EXHAUSTED or not self.make_room():
                    raise

    def duplicate(self, directory: Directory) -> int:
        """A descriptor of its own for an open directory. Raises UnreadableError."""
        try:
            return self.insist(lambda: os.dup(directory.fd))
        except OSError as error:
            raise failure(directory.path, error) from None

    def _close_oldest(self) -> None:
        directory, _ = self._open.popitem(last=False)
        os.close(directory.fd)
        directory.fd = -1
