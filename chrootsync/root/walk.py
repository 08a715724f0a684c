"""Walks paths one name at a time, relative to directory descriptors; the kernel never follows a link by itself.

The host side and the chroot side walk alike and differ in their :class:`Policy` only: which directories and links may
be passed. That keeps every path inside its root (an image's absolute links stay in the image), and lets a chroot's
links be spliced in with the chroot as ``/``, as path_resolution(7) describes it for a process that lives there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from chrootsync.model import AbsentError, PathError, UnreadableError, UnsafeError

MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
NO_NAMES = frozenset({"", ".", ".."})  # ends of paths that name a directory by the way there

Policy = Callable[[str, os.stat_result], None]
"""Called with the walked path and its status for each directory and link that is passed; raises UnsafeError."""


class Directory(NamedTuple):
    """An open directory (O_PATH) and its path from the walker's base, spelled without links."""

    fd: int
    path: str


class Place(NamedTuple):
    """A thing at the end of a walk: an O_PATH descriptor that the caller closes, its status, its path without links."""

    fd: int
    status: os.stat_result
    path: str


def anything(_path: str, _status: os.stat_result) -> None:
    """The policy of the host side: what the administrator linked is what a daemon outside would see."""


def only_trusted(owners: frozenset[int]) -> Policy:
    """The policy of everything that root writes beneath or believes: nobody else may have laid the way.

    With a POSIX ACL the group bits are its mask, so that they bound every named user and group (acl(5)).
    """

    def check(path: str, status: os.stat_result) -> None:
        if status.st_uid not in owners:
            what = "link" if stat.S_ISLNK(status.st_mode) else "directory"
            raise UnsafeError(path, f"this {what} belongs to user {status.st_uid}; give it to root (chown -h root)")
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise UnsafeError(path, f"others can write to this directory (mode {mode}); take that away (chmod go-w)")

    return check


def protected(owners: frozenset[int]) -> Policy:
    """The policy of configuration files: as ``only_trusted``, and a directory like /tmp may be passed.

    In a sticky directory others can make names of their own, but not take away or replace root's (unlink(2)).
    """
    trusted = only_trusted(owners)

    def check(path: str, status: os.stat_result) -> None:
        if not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid in owners):
            trusted(path, status)

    return check


def inside(trusted: Policy, device: int, mounts: frozenset[str]) -> Policy:
    """The policy inside a chroot: ``trusted``, and nothing mounted; ``mounts`` are paths from the chroot."""

    def check(path: str, status: os.stat_result) -> None:
        # Nothing can be mounted on a link; in an overlay its device is a lower layer's.
        if not stat.S_ISLNK(status.st_mode) and (status.st_dev != device or path in mounts):
            raise UnsafeError(path, "something is mounted here; unmount it, or make it an instance of its own")
        trusted(path, status)

    return check


def failure(path: str, error: OSError) -> PathError:
    """The error of the model that an OSError on a path means."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return AbsentError(path, "does not exist")
    return UnreadableError(path, (error.strerror or str(error)).lower())


def names(path: str) -> list[str]:
    """The names of a path, without empty ones and single dots."""
    return [name for name in path.split("/") if name and name != "."]


def join(directory: str, name: str) -> str:
    """A directory's path and a name in it."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


class Walker:
    """Finds directories and places below a base descriptor, under a policy; keeps what it opened until closed."""

    def __init__(self, base: int, policy: Policy) -> None:
        """Take over ``base``, an open directory that is ``/`` to everything walked here."""
        self._root = Directory(base, "/")
        self._policy = policy
        self._known: dict[str, Directory] = {"/": self._root}
        self._steps: dict[str, Directory | str] = {}

    def close(self) -> None:
        """Close every descriptor."""
        os.close(self._root.fd)
        for step in self._steps.values():
            if isinstance(step, Directory):
                os.close(step.fd)
        self._known.clear()
        self._steps.clear()

    def directory(self, path: str) -> Directory:
        """Walk to a directory. Raises AbsentError, UnreadableError, UnsafeError."""
        known = self._known.get(path)
        if known is None:
            known = self._walk(path, names(path))
            self._known[path] = known
        return known

    def place(self, path: str) -> Place:
        """Walk to anything, following a link at the end too. Raises AbsentError, UnreadableError, UnsafeError."""
        pending = path
        for _ in range(MAX_LINKS + 1):
            head, tail = os.path.split(pending)
            if tail in NO_NAMES:
                directory = self.directory(pending)
                return Place(os.dup(directory.fd), os.fstat(directory.fd), directory.path)
            directory = self.directory(head)
            place = self._look(directory, tail)
            if not stat.S_ISLNK(place.status.st_mode):
                return place
            target = self._read_link(place)
            pending = target if target.startswith("/") else join(directory.path, target)
            pending = pending.rstrip("/") or "/"
        raise UnreadableError(path, "too many levels of symbolic links")

    def _walk(self, path: str, pending: list[str]) -> Directory:
        here = self._root
        pending.reverse()
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                here = self._known_parent(here)
                continue
            step = self._step(here, name)
            if isinstance(step, Directory):
                here = step
                continue
            links += 1
            if links > MAX_LINKS:
                raise UnreadableError(path, "too many levels of symbolic links")
            here = self._root if step.startswith("/") else here
            pending.extend(reversed(names(step)))
        return here

    def _known_parent(self, here: Directory) -> Directory:
        # The spelling holds no link, so that its parent was passed on the way; above the base there is nothing.
        parent = self._steps.get(os.path.dirname(here.path))
        return parent if isinstance(parent, Directory) else self._root

    def _step(self, here: Directory, name: str) -> Directory | str:
        """One name further: a directory, or the text of a link."""
        path = join(here.path, name)
        known = self._steps.get(path)
        if known is not None:
            return known
        place = self._look(here, name)
        mode = place.status.st_mode
        if stat.S_ISLNK(mode):
            step: Directory | str = self._read_link(place)
        elif stat.S_ISDIR(mode):
            step = self._pass(place)
        else:
            os.close(place.fd)
            raise AbsentError(path, "is not a directory")
        self._steps[path] = step
        return step

    def _pass(self, place: Place) -> Directory:
        try:
            self._policy(place.path, place.status)
        except PathError:
            os.close(place.fd)
            raise
        return Directory(place.fd, place.path)

    def _look(self, here: Directory, name: str) -> Place:
        path = join(here.path, name)
        try:
            fd = os.open(name, LOOK, dir_fd=here.fd)
        except OSError as error:
            raise failure(path, error) from None
        except ValueError:
            raise AbsentError(path, "cannot be the name of a file") from None
        return Place(fd, os.fstat(fd), path)

    def _read_link(self, place: Place) -> str:
        """The text of a link that the policy lets pass; closes the place."""
        try:
            self._policy(place.path, place.status)
            return os.readlink("", dir_fd=place.fd)
        except OSError as error:
            raise failure(place.path, error) from None
        finally:
            os.close(place.fd)
