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
from chrootsync.root.policy import MOUNTED, Policy
from chrootsync.root.pool import Directory, Pool, clause_of, failure, inode

MAX_LINKS = 40  # the kernel's own limit, path_resolution(7)
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
REPLACED = "was replaced while it was looked at"
NO_NAMES = frozenset({"", ".", ".."})  # ends of paths that name a directory by the way there


class Place(NamedTuple):
    """A thing at the end of a walk: an O_PATH descriptor that the caller closes, its status, its path without links."""

    fd: int
    status: os.stat_result
    path: str


def status_of(fd: int, path: str) -> os.stat_result:
    """The status of an open descriptor. Raises UnreadableError."""
    try:
        return os.fstat(fd)
    except OSError as error:
        raise failure(path, error) from None


def names(path: str) -> list[str]:
    """The names of a path, without empty ones and single dots."""
    return [name for name in path.split("/") if name and name != "."]


def join(directory: str, name: str) -> str:
    """A directory's path and a name in it."""
    return f"/{name}" if directory == "/" else f"{directory}/{name}"


def split(path: str) -> tuple[str, str]:
    """The directory of an absolute path and the name in it; os.path.split takes three times as long for the same."""
    head, _, tail = path.rpartition("/")
    return head or "/", tail


class Walker:
    """Finds directories and places below a base, under a policy; remembers the way, and keeps open what its pool keeps.

    A directory that the pool has closed is opened again from the nearest one above that is open, under the same policy,
    and only if it is still the same one.
    """

    def __init__(
        self,
        base: Directory,
        policy: Policy,
        pool: Pool,
        open_base: Callable[[], int] | None = None,
        mounts: frozenset[str] = frozenset(),
    ) -> None:
        """Take over ``base``, an open directory that is ``/`` to everything walked here.

        ``open_base`` opens it anew after the pool has closed it; without, it stays open. ``mounts`` are paths that are
        not even looked at: what is mounted there may never answer.
        """
        self._root = base
        self._policy = policy
        self.pool = pool
        self._open_base = open_base
        self._mounts = mounts
        if open_base is None:
            pool.pin(base)
        else:
            pool.keep(base)
        self._known: dict[str, Directory] = {"/": base}
        self._steps: dict[str, Directory | str] = {}

    @property
    def inode(self) -> tuple[int, int]:
        """The inode of the base."""
        return self._root.inode

    def close(self) -> None:
        """Close every descriptor."""
        self.pool.close(self._root)
        for step in self._steps.values():
            if isinstance(step, Directory):
                self.pool.close(step)
        self._open_base = None
        self._known.clear()
        self._steps.clear()

    def directory(self, path: str) -> Directory:
        """Walk to a directory that stays open until the walker is closed.

        Raises AbsentError, UnreadableError, UnsafeError.
        """
        found = self.visit(path)
        self.pool.pin(found)
        return found

    def visit(self, path: str) -> Directory:
        """Walk to a directory that stays open until the next walk. Raises AbsentError, UnreadableError, UnsafeError."""
        known = self._known.get(path)
        if known is None:
            known = self._walk(path, names(path))
            self._known[path] = known
        if known.fd < 0:
            self._open_again(known)
        self.pool.use(known)
        return known

    def opened(self, directory: Directory) -> Directory:
        """A directory that was walked to, opened again if need be. Raises AbsentError, UnreadableError, UnsafeError."""
        if directory.fd < 0:
            self._open_again(directory)
        self.pool.use(directory)
        return directory

    def place(self, path: str) -> Place:
        """Walk to anything, following a link at the end too. Raises AbsentError, UnreadableError, UnsafeError."""
        pending = path
        for _ in range(MAX_LINKS + 1):
            head, tail = split(pending)
            if tail in NO_NAMES:
                directory = self.visit(pending)
                status = status_of(directory.fd, directory.path)
                return Place(self.pool.duplicate(directory), status, directory.path)
            directory = self.visit(head)
            place = self._look(directory, tail)
            if not stat.S_ISLNK(place.status.st_mode):
                return place
            target = self._read_link(place)
            pending = target if target.startswith("/") else join(directory.path, target)
            pending = pending.rstrip("/") or "/"
        raise UnreadableError(path, clause_of(errno.ELOOP))

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
                raise UnreadableError(path, clause_of(errno.ELOOP))
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
        place = self._look(self.opened(here), name)
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
        self._permit(place)
        directory = Directory(place.fd, place.path, place.status)
        self.pool.keep(directory)
        return directory

    def _permit(self, place: Place) -> None:
        """Ask the policy; what it refuses is closed."""
        try:
            self._policy(place.path, place.status)
        except PathError:
            os.close(place.fd)
            raise

    def _open_again(self, directory: Directory) -> None:
        """Open a directory that the pool has closed, and those above it that lead there."""
        closed = [directory]
        while closed[-1] is not self._root and (parent := self._known_parent(closed[-1])).fd < 0:
            closed.append(parent)
        if closed[-1] is self._root:
            closed.pop()
            self._open_root()
        for each in reversed(closed):
            parent = self._known_parent(each)
            self.pool.use(parent)
            place = self._look(parent, os.path.basename(each.path))
            if not stat.S_ISDIR(place.status.st_mode) or inode(place.status) != each.inode:
                os.close(place.fd)
                raise UnreadableError(each.path, REPLACED)
            self._permit(place)
            each.fd = place.fd
            self.pool.keep(each)

    def _open_root(self) -> None:
        if self._open_base is None:
            raise UnreadableError(self._root.path, "the walk has ended")
        self._root.fd = self._open_base()
        self.pool.keep(self._root)

    def _look(self, here: Directory, name: str) -> Place:
        """What a name in an open directory stands for."""
        path = join(here.path, name)
        if path in self._mounts:
            raise UnsafeError(path, MOUNTED)
        try:
            fd = self.pool.open(name, LOOK, here.fd)
        except OSError as error:
            raise failure(path, error) from None
        except ValueError:
            raise AbsentError(path, "cannot be the name of a file") from None
        try:
            return Place(fd, os.fstat(fd), path)
        except OSError as error:
            os.close(fd)
            raise failure(path, error) from None

    def _read_link(self, place: Place) -> str:
        """The text of a link that the policy lets pass; closes the place."""
        try:
            self._policy(place.path, place.status)
            return os.readlink("", dir_fd=place.fd)
        except OSError as error:
            raise failure(place.path, error) from None
        finally:
            os.close(place.fd)
