"""Writes whole files on the host's side of a root, beneath directories that only root can change: units and hooks.

A repair has a Writer of its own, which knows chroots and what was compared; this is for files that are chrootsync's.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self

from chrootsync.model import AbsentError, UnreadableError, UnsafeError
from chrootsync.root.dress import strip
from chrootsync.root.files import state_of
from chrootsync.root.policy import only_trusted
from chrootsync.root.pool import Directory, Pool, failure
from chrootsync.root.read import Root, check_file
from chrootsync.root.steps import telling
from chrootsync.root.walk import Walker

LIMIT = 1 << 20
DIRECTORY_MODE = 0o755
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What is at a path, links not followed: ``data`` of a file, ``target`` of a link; of all else neither."""

    data: bytes | None = None
    target: str | None = None
    mode: int = 0


class Settings:
    """The host's side of a root, for use in a ``with`` statement; the way to everything must be root's alone."""

    def __init__(self, root: Root) -> None:
        """Open the root once more. Raises UnreadableError."""
        self._root = root
        self._pool = Pool()
        try:
            fd = os.open(root.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            base = Directory(fd, "/", os.fstat(fd))
        except OSError as error:
            raise failure(root.path, error) from None
        self._walker = Walker(base, only_trusted(root.owners), self._pool)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._walker.close()

    def vet(self, path: str) -> None:
        """Raise UnsafeError unless only root can change what is at a path, links followed, and the way there.

        Raises AbsentError, UnreadableError.
        """
        place = self._walker.place(path)
        os.close(place.fd)
        check_file(place.path, state_of(place.status), self._root.owners)

    def exists(self, path: str) -> bool:
        """Whether anything is at a path, links followed inside the root, whoever owns the way there."""
        try:
            self._root.source(path).close()
        except AbsentError:
            return False
        return True

    def look(self, path: str) -> Found | None:
        """What is at a path; None where nothing is. Raises UnreadableError, UnsafeError."""
        head, name = os.path.split(path)
        try:
            directory = self._walker.visit(head)
            status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                return Found(target=os.readlink(name, dir_fd=directory.fd))
            if not stat.S_ISREG(status.st_mode) or status.st_size > LIMIT:
                return Found()
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory.fd)
            with open(fd, "rb") as file:
                return Found(data=file.read(LIMIT), mode=stat.S_IMODE(status.st_mode))
        except (AbsentError, FileNotFoundError):
            return None
        except OSError as error:
            raise failure(path, error) from None

    def write(self, path: str, data: bytes, mode: int) -> None:
        """Put a file there, as a whole and durably, with the directories above it. Raises RepairError, UnsafeError."""
        with self._beside(path) as (directory, temporary, name):
            fd = os.open(temporary, WRITE, 0o600, dir_fd=directory.fd)
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                strip(fd)
                os.fchmod(fd, mode)
                os.fsync(fd)
            os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)

    def link(self, path: str, target: str) -> None:
        """Put a link there, with the directories above it. Raises RepairError, UnsafeError."""
        with self._beside(path) as (directory, temporary, name):
            os.symlink(target, temporary, dir_fd=directory.fd)
            os.rename(temporary, name, src_dir_fd=directory.fd, dst_dir_fd=directory.fd)

    def remove(self, path: str) -> None:
        """Remove a file or link. Raises RepairError, UnsafeError."""
        head, name = os.path.split(path)
        with telling(path, "removing it"):
            directory = self._walker.visit(head)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory.fd)
            _sync(directory)

    def remove_directory(self, path: str) -> None:
        """Remove a directory if nothing is in it any more. Raises RepairError, UnsafeError."""
        head, name = os.path.split(path)
        with telling(path, "removing the directory"):
            try:
                os.rmdir(name, dir_fd=self._walker.visit(head).fd)
            except (AbsentError, FileNotFoundError):
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise

    @contextmanager
    def _beside(self, path: str) -> Iterator[tuple[Directory, str, str]]:
        """The directory of a path, a name in it that is free, and the path's own; what is left there goes."""
        head, name = os.path.split(path)
        temporary = f".chrootsync-{secrets.token_hex(8)}"
        with telling(path, "writing it"):
            directory = self._made(head)
            try:
                yield directory, temporary, name
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory.fd)
                raise
            _sync(directory)

    def _made(self, path: str) -> Directory:
        """The directory at a path, made where it is missing. Raises UnsafeError, UnreadableError, OSError."""
        try:
            return self._walker.directory(path)
        except AbsentError:
            if path == "/":
                raise
        head, name = os.path.split(path)
        parent = self._made(head)
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            raise UnsafeError(path, "is no directory; move it away") from None
        os.chmod(name, DIRECTORY_MODE, dir_fd=parent.fd)
        _sync(parent)
        try:
            return self._walker.directory(path)
        except AbsentError:
            raise UnreadableError(path, "vanished as soon as it was made") from None


def _sync(directory: Directory) -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
