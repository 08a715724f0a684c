"""Contents that were replaced, kept for a rollback under their checksums: for root alone, and under a quota."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from contextlib import suppress

from chrootsync.model import Copy, PathError
from chrootsync.model.frozen import frozen
from chrootsync.state.marker import sync_directory
from chrootsync.state.private import is_private

NAME = "kept"
NEW = "new-"
ASIDE = "state.db.bad-"
CHUNK = 128 << 10
CHECKSUM = re.compile(r"[0-9a-f]{64}")


class _NotKeptError(Exception):
    """Why contents are not kept: a clause."""


@frozen
class _Kept:
    """A file among the kept contents, also one that a run never finished."""

    size: int
    mtime: int


class Keeper:
    """Keeps contents in one directory, at most ``quota`` bytes; makes room by giving up the oldest of earlier runs."""

    def __init__(self, directory: str | None, quota: int, notes: list[str]) -> None:
        """Without a directory nothing is kept. What could not be kept is told once for each path."""
        self._directory = None if directory is None else os.path.join(directory, NAME)
        self._quota = quota
        self._notes = notes
        self._told: set[str] = set()
        self._mine: set[str] = set()  # paths that this run needs
        self._found: dict[str, _Kept] | None = None

    def keep(self, copy: Copy) -> str | None:
        """Keep the contents of a copy; their checksum, None where they are not kept."""
        if self._directory is None:
            return None
        try:
            fd = copy.open()
        except PathError as error:
            self._tell(copy.path, error.reason)
            return None
        try:
            return self._keep(self._directory, fd)
        except _NotKeptError as error:
            self._tell(copy.path, str(error))
        except OSError as error:
            self._tell(copy.path, (error.strerror or str(error)).lower())
            self._found = None  # a step may be half done
        finally:
            os.close(fd)
        return None

    def path(self, sha256: str) -> str | None:
        """Where contents are kept, and stay until this run ends; None where they are gone, or not what they were."""
        if self._directory is None or not is_private(self._directory) or CHECKSUM.fullmatch(sha256) is None:
            return None
        path = _path(self._directory, sha256)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            if _checksum(fd, os.fstat(fd).st_size) != sha256:
                return None
            self._mine.add(path)
            return path
        except OSError:
            return None
        finally:
            os.close(fd)

    def clean(self, wanted: Collection[str]) -> None:
        """Remove everything but the contents that are wanted, also what runs that were cut short left."""
        if self._directory is None:
            return
        if any(name.startswith(ASIDE) for name in _names(os.path.dirname(self._directory))):
            return  # a database that was set aside may be mended, and refer to what this one knows nothing of
        paths = {_path(self._directory, sha256) for sha256 in wanted}
        with suppress(OSError):
            for path in _files(self._directory):
                if path not in paths:
                    with suppress(OSError):
                        os.unlink(path)
        self._found = None

    def _tell(self, path: str, reason: str) -> None:
        if path not in self._told:
            self._told.add(path)
            self._notes.append(f"{path} of a chroot: what was replaced could not be kept for a rollback: {reason}")

    def _keep(self, directory: str, fd: int) -> str:
        """Keep what is in an open file. Raises _NotKeptError, OSError."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _NotKeptError("it is not a regular file")
        if status.st_size > self._quota:
            raise _NotKeptError(f"it is larger than the {self._quota} bytes that all kept contents may have")
        _make_directory(directory)
        if self._found is None:
            self._found = _files(directory)
        sha256 = _checksum(fd, status.st_size)
        path = _path(directory, sha256)
        if self._has(path, status.st_size):
            if path not in self._mine:  # what is about to be put back must stay as it was looked at
                os.utime(path)
        else:
            self._make_room(status.st_size)
            sha256 = self._write(directory, fd, status.st_size)
            path = _path(directory, sha256)
        written = os.lstat(path)
        self._found[path] = _Kept(size=written.st_size, mtime=written.st_mtime_ns)
        self._mine.add(path)
        return sha256

    def _has(self, path: str, size: int) -> bool:
        """Whether these contents are kept already; of another size they are none."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if stat.S_ISREG(status.st_mode) and status.st_size == size:
            return True
        self._give_up(path)
        return False

    def _make_room(self, size: int) -> None:
        """Give up the oldest contents of earlier runs until there is room. Raises _NotKeptError, OSError."""
        found = self._found or {}
        total = sum(kept.size for kept in found.values())
        for path in sorted(found, key=lambda path: found[path].mtime):
            if total + size <= self._quota:
                return
            if path not in self._mine:
                total -= found[path].size
                self._give_up(path)
        if total + size > self._quota:
            raise _NotKeptError(f"this run has already kept almost all of the {self._quota} bytes that it may")

    def _give_up(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path)
        if self._found is not None:
            self._found.pop(path, None)

    def _write(self, directory: str, fd: int, size: int) -> str:
        """Write a file's contents beside the others, then give them their name. Gives their checksum."""
        import tempfile

        new, temporary = tempfile.mkstemp(prefix=NEW, dir=directory)
        try:
            try:
                sha256 = _checksum(fd, size, new)
                os.fsync(new)
            finally:
                os.close(new)
            path = _path(directory, sha256)
            below = os.path.dirname(path)
            if not os.path.lexists(below):
                os.mkdir(below, 0o700)
                sync_directory(directory)
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(below)
        return sha256


def _path(directory: str, sha256: str) -> str:
    return os.path.join(directory, sha256[:2], sha256)


def _make_directory(directory: str) -> None:
    """Raises OSError, also where others could write there."""
    if not os.path.lexists(directory):
        os.mkdir(directory, 0o700)
        sync_directory(os.path.dirname(directory))
    if not is_private(directory):
        raise PermissionError(None, f"{directory} is no directory that only root can write to")


def _files(directory: str) -> dict[str, _Kept]:
    """What is kept: files named by a checksum, and what was to become one. Raises OSError."""
    found: dict[str, _Kept] = {}
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(NEW):
                found |= _file(entry)
            elif len(entry.name) == 2 and entry.is_dir(follow_symlinks=False):
                with os.scandir(entry.path) as below:
                    for one in below:
                        if CHECKSUM.fullmatch(one.name) is not None:
                            found |= _file(one)
    return found


def _file(entry: os.DirEntry[str]) -> dict[str, _Kept]:
    with suppress(FileNotFoundError):  # somebody else was faster
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            return {entry.path: _Kept(size=status.st_size, mtime=status.st_mtime_ns)}
    return {}


def _checksum(fd: int, size: int, to: int | None = None) -> str:
    """The checksum of an open file of ``size`` bytes, which are written to another one. Raises OSError."""
    import hashlib

    digest, position = hashlib.sha256(), 0
    while chunk := os.pread(fd, min(CHUNK, size - position + 1), position):
        position += len(chunk)
        if position > size:
            break
        digest.update(chunk)
        if to is not None:
            _write_all(to, chunk)
    if position != size:
        raise OSError(None, "it changed while it was read")
    return digest.hexdigest()


def _write_all(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
