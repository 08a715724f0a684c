"""Files that were found: their states, their contents, and what a copy of them may be."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from chrootsync.model import (
    AbsentError,
    FileType,
    Identity,
    NotAFileError,
    PathError,
    ReplacedError,
    State,
    UnreadableError,
)
from chrootsync.root import contents
from chrootsync.root.dress import ACCESS_ACL, access_acl
from chrootsync.root.pool import Directory, Pool, failure
from chrootsync.root.walk import REPLACED, Place, Walker, join

ACL_USER, ACL_GROUP_OWNER, ACL_GROUP = 0x02, 0x04, 0x08  # tags of entries in an ACL, linux/posix_acl.h

EXTENSIONS = {ACCESS_ACL: "an ACL", "security.capability": "file capabilities"}
"""Extended attributes by which a copy could be more than its source, capabilities(7)."""

REOPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
REOPEN_NAME = REOPEN | os.O_NOFOLLOW

TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.LINK,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
}


def state_of(status: os.stat_result, target: str | None = None) -> State:
    """The state that a status describes, with what is known beyond it."""
    if stat.S_ISREG(status.st_mode):
        return _state_of_file(status, contents.identity(status))
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    node = kind in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)
    return State(
        type=kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        target=target,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if node else None,
        identity=contents.identity(status),
    )


def _state_of_file(status: os.stat_result, seen: Identity, extended: tuple[str, ...] = ()) -> State:
    return State(
        type=FileType.FILE,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size,
        identity=seen,
        extended=extended,
    )


def extensions(path: str, directory: Directory, name: str) -> tuple[str, ...]:
    """The extensions of a file, by its path for the kernel; none where they cannot be told.

    Nothing opens attributes beside a directory descriptor, and the way by /proc, which is left for paths that are too
    long, costs twice as much as this. The path holds no link, and was walked to through directories that only root can
    change.
    """
    try:
        found = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            return ()
        try:
            found = os.listxattr(f"/proc/self/fd/{directory.fd}/{name}", follow_symlinks=False)
        except OSError:
            return ()
    return _extensions(found)


def _told(fd: int) -> tuple[str, ...] | None:
    """The extensions of an open file; None where it tells nothing."""
    try:
        return _extensions(os.listxattr(fd))
    except OSError:
        return None


def _extensions(found: list[str]) -> tuple[str, ...]:
    return tuple(what for attribute, what in EXTENSIONS.items() if attribute in found) if found else ()


def reopen(fd: int, path: str, pool: Pool) -> int:
    """Open for reading what an O_PATH descriptor of a regular file stands for; a lease cannot make it block."""
    try:
        return pool.open(f"/proc/self/fd/{fd}", REOPEN)
    except FileNotFoundError:
        raise UnreadableError(path, "cannot be opened, because /proc is not mounted") from None
    except OSError as error:
        raise failure(path, error) from None


def read_at_most(fd: int, path: str, limit: int) -> bytes:
    """The contents of an open file. Raises UnreadableError, also where there is more than ``limit``."""
    try:
        data = b"".join(contents.chunks(fd, limit + 1))
    except OSError as error:
        raise failure(path, error) from None
    if len(data) > limit:
        raise UnreadableError(path, f"is larger than {limit} bytes")
    return data


def list_directory(directory: Directory, pool: Pool) -> list[tuple[str, FileType]]:
    """The names in a directory, sorted, with their types. Raises UnreadableError."""
    try:
        fd = pool.insist(lambda: os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd))
    except OSError as error:
        raise failure(directory.path, error) from None
    try:
        with os.scandir(fd) as entries:
            return sorted((entry.name, kind) for entry in entries if (kind := _type_of(entry)) is not None)
    except OSError as error:
        raise failure(directory.path, error) from None
    finally:
        os.close(fd)


def _type_of(entry: os.DirEntry[str]) -> FileType | None:
    """The type of a directory entry; None where it is gone again."""
    if entry.is_file(follow_symlinks=False):
        return FileType.FILE
    if entry.is_symlink():
        return FileType.LINK
    if entry.is_dir(follow_symlinks=False):
        return FileType.DIRECTORY
    try:
        return TYPES[stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)]
    except FileNotFoundError:
        return None


def open_named(walker: Walker, directory: Directory, name: str, seen: Identity, path: str) -> int:
    """Open a name in a directory for reading, which is a regular file that was ``seen`` there before.

    Only root can have changed the name, as whoever calls this has made sure; that it is still the same file is looked
    at. A FIFO or a device in its place would be opened by root's own doing alone. Raises PathError.
    """
    if directory.fd < 0:
        walker.opened(directory)
    try:
        fd = walker.pool.open(name, REOPEN_NAME, directory.fd)
    except OSError as error:
        raise failure(path, error) from None
    try:
        status = os.fstat(fd)
        if status.st_ino != seen[1] or status.st_dev != seen[0]:
            raise UnreadableError(path, REPLACED)
    except OSError as error:
        os.close(fd)
        raise failure(path, error) from None
    except PathError:
        os.close(fd)
        raise
    return fd


class HostFile:
    """A place on the host side; its contents are opened when they are asked for."""

    __slots__ = ("_fd", "_opened", "_opener", "_pool", "_readers", "data", "path", "state")

    def __init__(self, path: str, state: State, pool: Pool, held: int | Callable[[], int]) -> None:
        """A file is ``held`` by an O_PATH descriptor, which is taken over, or by nothing until it is opened that way.

        ``pool`` makes room for opening it.
        """
        self.path = path
        self.state = state
        self.data: bytes | None = None
        self._pool = pool
        self._fd = held if isinstance(held, int) else -1
        self._opener = None if isinstance(held, int) else held
        self._opened = -1
        self._readers: int | None = None

    @classmethod
    def at(cls, place: Place, pool: Pool) -> HostFile:
        """What a walk led to."""
        return cls(place.path, state_of(place.status), pool, place.fd)

    def stand_in(self, data: bytes) -> None:
        """Let ``data`` stand for the file's contents from now on."""
        self.data = data

    def contents(self, limit: int) -> bytes:
        """The file's contents, at most ``limit`` bytes of them. Raises UnreadableError."""
        return read_at_most(self.fileno(), self.path, limit)

    def fileno(self) -> int:
        """A descriptor for reading, the same each time. Raises UnreadableError."""
        if self._opened < 0:
            if self.state.type is not FileType.FILE:
                raise NotAFileError(self.path, f"is a {self.state.type}, not a file")
            if self._opener is None:
                self._opened = reopen(self._fd, self.path, self._pool)
            else:
                self._opened = self._open_late(self._opener)
        return self._opened

    def _open_late(self, opener: Callable[[], int]) -> int:
        """Open what nothing has held so far: whatever is in the way of that may be new, and has to be looked at."""
        try:
            return opener()
        except PathError as error:
            raise ReplacedError(self.path, error.reason) from None

    def open(self) -> int:
        """A descriptor for reading that the caller closes. Raises UnreadableError."""
        fd = self.fileno()
        try:
            return self._pool.insist(lambda: os.dup(fd))
        except OSError as error:
            raise failure(self.path, error) from None

    def readers(self) -> int:
        """The permission bits that a copy, which has no ACL, may have at most.

        Where the source has an ACL, the group bits of its mode are the mask and may grant more than the group has, and
        users and groups that it names may have less than others (acl(5)).
        """
        if self._readers is None:  # asked for each of a thousand copies
            mode = self.state.mode or 0
            acl = access_acl(self.fileno())
            self._readers = mode if acl is None else mode & _readers_by_acl(acl, mode >> 3 & 0o7)
        return self._readers

    def vouch(self) -> None:
        """Take it that no ACL takes from the mode: somebody has looked at this very inode as it is."""
        self._readers = self.state.mode or 0

    def close(self) -> None:
        """Close the descriptors."""
        if self._fd >= 0:
            os.close(self._fd)
        if self._opened >= 0:
            os.close(self._opened)


def _readers_by_acl(acl: bytes, mask: int) -> int:
    """The bits that an access ACL leaves to the owning group and to others.

    It is a version word, then (tag, permissions, id) of 2+2+4 bytes. Whoever is named in it and has less than the group
    or others would gain by a copy, where nobody is named.
    """
    group = others = 0o7
    for offset in range(4, len(acl) - 7, 8):
        tag = int.from_bytes(acl[offset : offset + 2], "little")
        permissions = int.from_bytes(acl[offset + 2 : offset + 4], "little") & mask
        if tag in (ACL_USER, ACL_GROUP_OWNER):
            group &= permissions
        if tag in (ACL_USER, ACL_GROUP):
            others &= permissions
    return 0o7700 | group << 3 | others


class ChrootCopy:
    """A place inside a chroot, looked at without following a link at its end."""

    __slots__ = ("_directory", "_extended", "_name", "_outside", "_state", "_status", "_walker", "identity", "path")

    def __init__(
        self,
        path: str,
        walker: Walker,
        directory: Directory | None,
        name: str,
        state: State | None = None,
        status: os.stat_result | None = None,
        outside: str = "",
    ) -> None:
        """``directory`` is None where the way there ends early; it stays the walker's, which may have to reopen it.

        A regular file has its ``status``, all else its ``state``; ``outside`` is the path of the chroot as this process
        sees it.
        """
        self.path = path
        self._walker = walker
        self._directory = directory
        self._name = name
        self._state = state
        self._status = status
        self._outside = outside
        self._extended: tuple[str, ...] | None = None
        self.identity: Identity | None = None if status is None else contents.identity(status)

    @property
    def state(self) -> State | None:
        """What is there. What a file has beyond its mode is asked for here: of one that was open, that cost less."""
        if self._state is None and self._status is not None:
            extended = self._extensions() if self._extended is None else self._extended
            self._state = _state_of_file(self._status, self.identity or contents.identity(self._status), extended)
        return self._state

    def vouch(self) -> None:
        """Take it that the file has nothing beyond its mode: somebody has looked at this very inode as it is."""
        self._extended = ()

    def _extensions(self) -> tuple[str, ...]:
        if self._directory is None:
            return ()
        directory = self._walker.opened(self._directory)
        return extensions(self._outside + join(directory.path, self._name), directory, self._name)

    def open(self) -> int:
        """Open the file for reading; the walk has made sure that only root can change its name.

        Raises UnreadableError, AbsentError, UnsafeError.
        """
        if self._directory is None or (self.identity is None and self._state is None):
            raise AbsentError(self.path, "does not exist")
        if self.identity is None:
            kind = None if self._state is None else self._state.type
            raise NotAFileError(self.path, f"is a {kind}, not a file")
        fd = open_named(self._walker, self._directory, self._name, self.identity, self.path)
        if self._extended is None:
            self._extended = _told(fd)
        return fd

    def contents(self, limit: int) -> bytes:
        """The file's contents, at most ``limit`` bytes of them. Raises PathError."""
        fd = self.open()
        try:
            return read_at_most(fd, self.path, limit)
        finally:
            os.close(fd)
