"""The Reader: a root seen from its host side and from inside its chroots."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property

from chrootsync.model import (
    AbsentError,
    Copy,
    FileType,
    NotAFileError,
    PathError,
    Problem,
    Source,
    State,
    UnreadableError,
    UnsafeError,
)
from chrootsync.root import contents
from chrootsync.root.dress import ACCESS_ACL, access_acl
from chrootsync.root.walk import (
    NO_NAMES,
    REPLACED,
    Directory,
    Place,
    Pool,
    Walker,
    anything,
    failure,
    inode,
    inside,
    join,
    only_trusted,
    protected,
    status_of,
)

DIGEST_LIMIT = 256 << 20  # a checksum is for reports; a hostile sparse file must not keep a check busy for hours
ACL_USER, ACL_GROUP_OWNER, ACL_GROUP = 0x02, 0x04, 0x08  # tags of entries in an ACL, linux/posix_acl.h

EXTENSIONS = {ACCESS_ACL: "an ACL", "security.capability": "file capabilities"}
"""Extended attributes by which a copy could be more than its source, capabilities(7)."""

TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.LINK,
    stat.S_IFSOCK: FileType.SOCKET,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
}


def state_of(status: os.stat_result, target: str | None = None, extended: tuple[str, ...] = ()) -> State:
    """The state that a status describes, with what is known beyond it."""
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    node = kind in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)
    return State(
        type=kind,
        mode=status.st_mode & 0o7777,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind is FileType.FILE else None,
        target=target,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if node else None,
        identity=contents.identity(status),
        extended=extended,
    )


def extensions(path: str) -> tuple[str, ...]:
    """The extensions of a file, by its path for the kernel; none where they cannot be told.

    Nothing opens attributes beside a directory descriptor, and the way by /proc costs twice as much as this. The path
    holds no link, and was walked to through directories that only root can change.
    """
    try:
        found = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()
    return tuple(what for attribute, what in EXTENSIONS.items() if attribute in found) if found else ()


def reopen(fd: int, path: str, pool: Pool) -> int:
    """Open for reading what an O_PATH descriptor of a regular file stands for; a lease cannot make it block."""
    try:
        return pool.insist(lambda: os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
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
    if entry.is_symlink():
        return FileType.LINK
    if entry.is_file(follow_symlinks=False):
        return FileType.FILE
    if entry.is_dir(follow_symlinks=False):
        return FileType.DIRECTORY
    try:
        return TYPES[stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)]
    except FileNotFoundError:
        return None


class HostFile:
    """A place on the host side; its contents are opened when they are asked for."""

    def __init__(self, place: Place, pool: Pool) -> None:
        """Take over the descriptor of ``place``; ``pool`` makes room for opening it."""
        self._place = place
        self._pool = pool
        self._data: bytes | None = None
        self._opened: int | None = None
        self.path = place.path
        self.state = state_of(place.status)

    @property
    def data(self) -> bytes | None:
        """Contents at hand, which stand for what is in the file."""
        return self._data

    def stand_in(self, data: bytes) -> None:
        """Let ``data`` stand for the file's contents from now on."""
        self._data = data

    def contents(self, limit: int) -> bytes:
        """The file's contents, at most ``limit`` bytes of them. Raises UnreadableError."""
        return read_at_most(self.fileno(), self.path, limit)

    def fileno(self) -> int:
        """A descriptor for reading, the same each time. Raises UnreadableError."""
        if self._opened is None:
            if self.state.type is not FileType.FILE:
                raise NotAFileError(self.path, f"is a {self.state.type}, not a file")
            self._opened = reopen(self._place.fd, self.path, self._pool)
        return self._opened

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
        mode = self.state.mode or 0
        acl = access_acl(self.fileno())
        return mode if acl is None else mode & _readers_by_acl(acl, mode >> 3 & 0o7)

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self._place.fd)
        if self._opened is not None:
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

    __slots__ = ("_directory", "_name", "_walker", "path", "state")

    def __init__(self, path: str, walker: Walker, directory: Directory | None, name: str, state: State | None) -> None:
        """``directory`` is None where the way there ends early; it stays the walker's, which may have to reopen it."""
        self.path = path
        self._walker = walker
        self._directory = directory
        self._name = name
        self.state = state

    def open(self) -> int:
        """Open the file for reading. Raises UnreadableError, AbsentError, UnsafeError.

        The name is opened once more: only root can have changed it, as the walk has made sure, and that it is still the
        same file is looked at. A FIFO or a device in its place would be opened by root's own doing alone.
        """
        if self._directory is None or self.state is None:
            raise AbsentError(self.path, "does not exist")
        if self.state.type is not FileType.FILE:
            raise NotAFileError(self.path, f"is a {self.state.type}, not a file")
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        directory = self._walker.opened(self._directory)
        try:
            fd = self._walker.pool.insist(lambda: os.open(self._name, flags, dir_fd=directory.fd))
        except OSError as error:
            raise failure(self.path, error) from None
        try:
            if self.state.identity is None or inode(status_of(fd, self.path)) != self.state.identity[:2]:
                raise UnreadableError(self.path, REPLACED)
        except PathError:
            os.close(fd)
            raise
        return fd

    def contents(self, limit: int) -> bytes:
        """The file's contents, at most ``limit`` bytes of them. Raises PathError."""
        fd = self.open()
        try:
            return read_at_most(fd, self.path, limit)
        finally:
            os.close(fd)


class WalkedChroot:
    """One chroot of a root; see the Chroot protocol of the model."""

    def __init__(self, path: str, outside: str, walker: Walker, mounts: frozenset[str]) -> None:
        """``path`` is the chroot's from the root, ``outside`` as this process sees it, without a slash at its end.

        ``mounts`` are the mount points below it, from the chroot.
        """
        self.path = path
        self._outside = outside
        self.walker = walker
        self._mounts = mounts

    def close(self) -> None:
        """Close every descriptor of the walk."""
        self.walker.close()

    def canonical(self, directory: str) -> str | None:
        """The spelling of a directory without links; None where it is missing."""
        try:
            return self.walker.visit(directory).path
        except AbsentError:
            return None

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a directory of the chroot; empty where it is missing."""
        try:
            found = self.walker.visit(directory)
        except AbsentError:
            return []
        return list_directory(found, self.walker.pool)

    def look(self, path: str) -> Copy:
        """What is at a path inside the chroot."""
        head, name = os.path.split(path)
        try:
            if name in NO_NAMES:
                directory = self.walker.visit(path)
                return ChrootCopy(path, self.walker, directory, ".", state_of(status_of(directory.fd, path)))
            directory = self.walker.visit(head)
        except AbsentError:
            return ChrootCopy(path, self.walker, None, name, None)
        state = self._status(directory, name)
        return ChrootCopy(path, self.walker, directory, name, state)

    def _status(self, directory: Directory, name: str) -> State | None:
        path = join(directory.path, name)
        try:
            status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            target = os.readlink(name, dir_fd=directory.fd) if stat.S_ISLNK(status.st_mode) else None
        except OSError as error:
            problem = failure(path, error)
            if isinstance(problem, AbsentError):
                return None
            raise problem from None
        except ValueError:  # a NUL byte
            return None
        if path in self._mounts:
            raise UnsafeError(path, "something is mounted here; unmount it, a copy cannot replace a mount")
        if not stat.S_ISREG(status.st_mode):
            return state_of(status, target)
        if status.st_nlink > 1:
            reason = f"this file has {status.st_nlink} links, so that its contents are elsewhere too; remove it"
            raise UnsafeError(path, f"{reason}, and check --fix makes a copy of its own")
        return state_of(status, extended=extensions(self._outside + path))


class Root:
    """A root, read-only; see the Reader protocol of the model."""

    def __init__(self, path: str) -> None:
        """Open a root. Raises AbsentError, UnreadableError."""
        self.path = path
        try:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise failure(path, error) from None
        try:
            self._status = os.fstat(fd)
            self.live = os.path.samestat(self._status, os.stat("/"))
        except OSError as error:
            os.close(fd)
            raise failure(path, error) from None
        self.owners = frozenset({0, os.geteuid()})
        self._pool = Pool()
        base = Directory(fd, "/", self._status)
        self._host = Walker(base, anything, self._pool)
        self._trusting = Walker(base, only_trusted(self.owners), self._pool)
        self._protected = Walker(base, protected(self.owners), self._pool)

    def close(self) -> None:
        """Close every descriptor of the walks; chroots close their own."""
        self._host.close()
        self._trusting.close()
        self._protected.close()

    def source(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root."""
        return HostFile(self._host.place(path), self._pool)

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """The contents of a host file of at most ``limit`` bytes."""
        return self._read(self._host, path, limit)

    def read_trusted(self, path: str) -> bytes:
        """The contents of a configuration file that only root could have written; of an image, any."""
        return self._read(self._protected if self.live else self._host, path, 16 << 20)

    def _read(self, walker: Walker, path: str, limit: int) -> bytes:
        found = HostFile(walker.place(path), self._pool)
        try:
            if walker is self._protected:
                check_file(path, found.state, self.owners)
            return found.contents(limit)
        finally:
            found.close()

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a host directory."""
        return list_directory(self._host.visit(directory), self._pool)

    def resolve(self, path: str) -> str:
        """The host path without links."""
        place = self._host.place(path)
        os.close(place.fd)
        return place.path

    def chroot(self, path: str) -> WalkedChroot:
        """Walk to a chroot, through directories that root alone can change."""
        only_trusted(self.owners)("/", self._status)
        way = self._trusting.visit(path)
        status = status_of(way.fd, path)
        if os.path.samestat(status, self._status) or os.path.samestat(status, os.stat("/")):
            raise UnsafeError(path, "is the root itself; a chroot must be a directory of its own")
        outside = os.path.realpath(self.path).rstrip("/") + way.path.rstrip("/")
        below = f"{outside}/"
        mounts = frozenset("/" + mount.removeprefix(below) for mount in self._mounts if mount.startswith(below))
        policy = inside(only_trusted(self.owners), status.st_dev, mounts)

        def enter() -> int:
            return self._pool.duplicate(self._trusting.opened(way))

        base = Directory(enter(), "/", status)
        return WalkedChroot(way.path, outside, Walker(base, policy, self._pool, enter), mounts)

    @cached_property
    def _mounts(self) -> tuple[str, ...]:
        return mount_points()

    def same(self, source: Source, copies: Sequence[Copy]) -> Iterator[bool | Problem]:
        """For each copy, whether its bytes equal the source's."""
        data = source.data
        return contents.same(source.fileno() if data is None else data, [copy.open for copy in copies])

    def sha256(self, thing: Source | Copy) -> str | None:
        """The SHA-256 checksum of a file, None where there is none to be had."""
        if thing.state is None or thing.state.size is None or thing.state.size > DIGEST_LIMIT:
            return None
        if isinstance(thing, HostFile) and thing.data is not None:
            return contents.sha256_of(thing.data)
        try:
            fd = thing.open()
        except PathError:
            return None
        try:
            return contents.sha256(fd)
        except OSError:
            return None
        finally:
            os.close(fd)


def check_file(path: str, state: State, owners: frozenset[int]) -> None:
    """Raise UnsafeError unless only root could have written a configuration file."""
    if state.uid not in owners:
        raise UnsafeError(path, f"belongs to user {state.uid}, who could change it; give it to root (chown root)")
    if (state.mode or 0) & 0o022:
        raise UnsafeError(path, f"others can write to it (mode {state.mode:04o}); take that away (chmod go-w)")


def mount_points() -> tuple[str, ...]:
    """Every mount point that this process sees, from proc_pid_mountinfo(5); empty where /proc is not mounted."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().rstrip(b"\n").split(b"\n")  # a mount point may hold every other line break
    except OSError:
        return ()
    return tuple(os.fsdecode(_unescape(line.split(b" ")[4])) for line in lines)


def _unescape(field: bytes) -> bytes:
    """Undo the octal escapes of space, tab, newline and backslash."""
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, character)
    return field
