"""The Reader: a root seen from its host side and from inside its chroots."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import cached_property

from chrootsync.model import (
    AbsentError,
    Copy,
    FileType,
    PathError,
    Problem,
    Source,
    State,
    UnsafeError,
)
from chrootsync.root import contents
from chrootsync.root.files import ChrootCopy, HostFile, list_directory, open_named, state_of
from chrootsync.root.policy import Policy, anything, inside, only_trusted, protected
from chrootsync.root.pool import Directory, Pool, failure
from chrootsync.root.walk import NO_NAMES, Walker, join, split, status_of

DIGEST_LIMIT = 256 << 20  # a checksum is for reports; a hostile sparse file must not keep a check busy for hours


Way = Callable[[str], tuple[str, frozenset[tuple[int, int]]]]
"""Gives the path of a host directory without links, and the inodes of it and of all above it."""


class WalkedChroot:
    """One chroot of a root; see the Chroot protocol of the model."""

    def __init__(
        self,
        path: str,
        outside: str,
        walkers: Callable[[Policy], Walker],
        trusted: Policy,
        mounts: frozenset[str],
        way: Way,
    ) -> None:
        """``path`` is the chroot's from the root, ``outside`` as this process sees it, without a slash at its end.

        ``walkers`` makes one that begins at the chroot; ``trusted`` is the policy of all that is read or written by its
        path. ``mounts`` are the mount points below it, from the chroot.
        """
        self.path = path
        self._below = path.rstrip("/") + "/"
        self._outside = outside
        self._walkers = walkers
        self.walker = walkers(trusted)
        self._anywhere: Walker | None = None
        self._mounts = mounts
        self._way = way
        self._held: dict[str, bool] = {}  # asked for each file twice, and all files of a directory are alike

    def close(self) -> None:
        """Close every descriptor of the walks."""
        self.walker.close()
        if self._anywhere is not None:
            self._anywhere.close()

    def holds(self, source: str) -> bool:
        """Whether a host path lies in the chroot: by its name or, where a directory is mounted twice, by inode.

        A link on the way that leads into the chroot is something else: it says so once it is resolved.
        """
        directory = split(source)[0]
        held = self._held.get(directory)
        if held is None:
            held = self._held[directory] = self._holds(directory)
        return held

    def _holds(self, directory: str) -> bool:
        if f"{directory}/".startswith(self._below):
            return True
        real, inodes = self._way(directory)
        return self.walker.inode in inodes and not f"{real}/".startswith(self._below)

    def canonical(self, directory: str) -> str | None:
        """The spelling of a directory without links; None where it is missing."""
        try:
            return self.walker.visit(directory).path
        except AbsentError:
            return None

    def has_socket(self, path: str) -> bool:
        """Whether a socket is at a path, links followed, whoever owns the way there: it is looked for, no more.

        A mount is not looked into, and counts: who mounts something there brings a socket into the chroot.
        """
        if self._anywhere is None:
            self._anywhere = self._walkers(anything)
        try:
            place = self._anywhere.place(path)
        except AbsentError:
            return False
        except UnsafeError:
            return True
        os.close(place.fd)
        return stat.S_ISSOCK(place.status.st_mode)

    def names(self, directory: str) -> list[tuple[str, FileType]]:
        """The names in a directory of the chroot; empty where it is missing."""
        try:
            found = self.walker.visit(directory)
        except AbsentError:
            return []
        return list_directory(found, self.walker.pool)

    def look(self, path: str) -> Copy:
        """What is at a path inside the chroot."""
        head, name = split(path)
        try:
            if name in NO_NAMES:
                directory = self.walker.visit(path)
                return ChrootCopy(path, self.walker, directory, ".", state_of(status_of(directory.fd, path)))
            directory = self.walker.visit(head)
        except AbsentError:
            return ChrootCopy(path, self.walker, None, name)
        if self._mounts and join(directory.path, name) in self._mounts:
            reason = "something is mounted here; unmount it, a copy cannot replace a mount"
            raise UnsafeError(join(directory.path, name), reason)
        try:
            status = os.lstat(name, dir_fd=directory.fd)
            target = os.readlink(name, dir_fd=directory.fd) if stat.S_ISLNK(status.st_mode) else None
        except OSError as error:
            problem = failure(join(directory.path, name), error)
            if isinstance(problem, AbsentError):
                return ChrootCopy(path, self.walker, directory, name)
            raise problem from None
        except ValueError:  # a NUL byte
            return ChrootCopy(path, self.walker, directory, name)
        if not stat.S_ISREG(status.st_mode):
            return ChrootCopy(path, self.walker, directory, name, state_of(status, target))
        if status.st_nlink > 1:
            reason = f"this file has {status.st_nlink} links, so that its contents are elsewhere too; remove it"
            raise UnsafeError(join(directory.path, name), f"{reason}, and check --fix makes a copy of its own")
        return ChrootCopy(path, self.walker, directory, name, status=status, outside=self._outside)


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
            self._own = os.stat("/")
        except OSError as error:
            os.close(fd)
            raise failure(path, error) from None
        self.live = os.path.samestat(self._status, self._own)
        self.inode = (self._status.st_dev, self._status.st_ino)
        self.owners = frozenset({0, os.geteuid()})
        self._pool = Pool()
        base = Directory(fd, "/", self._status)
        self._ways: dict[str, tuple[str, frozenset[tuple[int, int]]]] = {}
        self._entered: dict[str, tuple[int, int]] = {}
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
        return HostFile.at(self._host.place(path), self._pool)

    def glance(self, path: str) -> Source:
        """Look at a host path, every link followed inside the root; a regular file stays closed until it is read.

        That is for directories that only root can change: elsewhere, what is opened is held from the first look on.
        """
        head, name = split(path)
        if name in NO_NAMES:
            return self.source(path)
        walker = self._host
        directory = walker.visit(head)
        if directory.keeper not in self.owners:
            return self.source(path)
        try:
            state = state_of(os.lstat(name, dir_fd=directory.fd))
        except (OSError, ValueError):
            return self.source(path)  # which tells what is the matter
        if state.type is not FileType.FILE or state.identity is None:
            return self.source(path)
        real, seen = path if directory.path == head else join(directory.path, name), state.identity
        return HostFile(real, state, self._pool, lambda: open_named(walker, directory, name, seen, path))

    def note(self, _path: str) -> None:
        """Another process has looked at a host path: that is of no account here."""

    def state(self, path: str) -> State:
        """What is at a host path, every link followed inside the root."""
        with closing(self.source(path)) as found:
            return found.state

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """The contents of a host file of at most ``limit`` bytes."""
        return self._read(self._host, path, limit)

    def read_trusted(self, path: str) -> bytes:
        """The contents of a configuration file that only root could have written; of an image, any."""
        return self._read(self._protected if self.live else self._host, path, 16 << 20)

    def _read(self, walker: Walker, path: str, limit: int) -> bytes:
        found = HostFile.at(walker.place(path), self._pool)
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
        return self._enter(path, self._trusting, self._mounts)

    def chroot_anew(self, path: str) -> WalkedChroot:
        """Walk to a chroot as if nothing had been seen yet: what is mounted, and the whole way.

        Raises UnsafeError where another directory is there than when it was first walked to.
        """
        try:
            fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise failure(self.path, error) from None
        base = Directory(fd, "/", self._status)
        walker = Walker(base, only_trusted(self.owners), self._pool)
        try:
            return self._enter(path, walker, mount_points())
        finally:
            walker.close()

    def _enter(self, path: str, trusting: Walker, mounted: Sequence[str]) -> WalkedChroot:
        only_trusted(self.owners)("/", self._status)
        way = trusting.visit(path)
        status = status_of(way.fd, path)
        if any(os.path.samestat(status, root) for root in (self._status, self._own)):
            raise UnsafeError(path, "is the root itself; a chroot must be a directory of its own")
        if self._entered.setdefault(path, way.inode) != way.inode:
            raise UnsafeError(path, "another directory is there than when it was compared; run check --fix once more")
        outside = os.path.realpath(self.path).rstrip("/") + way.path.rstrip("/")
        below = f"{outside}/"
        mounts = frozenset("/" + mount.removeprefix(below) for mount in mounted if mount.startswith(below))
        enter = None if trusting is not self._trusting else lambda: self._pool.duplicate(self._trusting.opened(way))

        def walker(policy: Policy) -> Walker:
            base = Directory(self._pool.duplicate(trusting.opened(way)), "/", status)
            return Walker(base, inside(policy, status.st_dev), self._pool, enter, mounts)

        return WalkedChroot(way.path, outside, walker, only_trusted(self.owners), mounts, self._way)

    def _way(self, directory: str) -> tuple[str, frozenset[tuple[int, int]]]:
        """A host directory's path without links, and the inodes of it and of all above it; none where it is missing."""
        if directory not in self._ways:
            found, real = set(), directory
            with suppress(PathError):
                real = path = self._host.visit(directory).path
                while path != "/":
                    found.add(self._host.visit(path).inode)
                    path = os.path.dirname(path)
            self._ways[directory] = real, frozenset(found)
        return self._ways[directory]

    @cached_property
    def _mounts(self) -> tuple[str, ...]:
        return mount_points()

    def same(self, source: Source, copies: Sequence[Copy]) -> Iterator[bool | Problem]:
        """For each copy, whether its bytes equal the source's."""
        data = source.data
        return contents.same(source.fileno() if data is None else data, [copy.open for copy in copies])

    def is_at_hand(self, source: Source) -> bool:
        """Whether the beginning of a file is in memory, or nobody can tell."""
        return contents.is_at_hand(source.fileno())

    def will_read(self, thing: Source | Copy) -> None:
        """Have the beginning of a file brought into memory, without waiting for it."""
        with suppress(PathError):
            fd = thing.open()
            try:
                contents.will_read(fd)
            finally:
                os.close(fd)

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
            return contents.sha256(fd, DIGEST_LIMIT)
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
