"""Makes directories and gives them their metadata, where they are.

A directory has one name only, so that its inode can be changed in place: there is no host file behind it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chrootsync.model import PathError, RepairError, State
from chrootsync.root import kernel
from chrootsync.root.dress import ACCESS_ACL, access_acl, dress, strip
from chrootsync.root.pool import Directory, inode
from chrootsync.root.steps import CHANGED, LeftoverError, Made, is_directory_of, refuse_another, telling

DRESSING = "setting the directory's mode and owner"


def make(parent: Directory, name: str, path: str, want: State) -> Made:
    """Make a directory with the wanted metadata. Raises RepairError, LeftoverError where a failure left it there."""
    with telling(path, "making the directory"):
        refuse_append_only(parent)
        os.mkdir(name, 0o700, dir_fd=parent.fd)
        try:
            status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except BaseException:
            os.rmdir(name, dir_fd=parent.fd)
            raise
    made = Made(path=path, parent=parent, name=name, inode=inode(status), before=None)
    try:
        with telling(path, DRESSING), _opened(parent, name) as fd:
            strip(fd)
            dress(fd, want)
            os.fsync(fd)
    except BaseException as error:
        _undo_again(made, error)
        raise
    return made


def change(parent: Directory, name: str, path: str, want: State, before: State) -> Made:
    """Give a directory the wanted metadata. Raises RepairError, LeftoverError where a failure left it changed."""
    with telling(path, DRESSING), _opened(parent, name) as fd:
        status = os.fstat(fd)
        if not is_directory_of(status, before):
            raise RepairError(path, CHANGED)
        made = Made(path=path, parent=parent, name=name, inode=inode(status), before=before, acl=access_acl(fd))
        try:
            with suppress(OSError):
                os.removexattr(fd, ACCESS_ACL)
            dress(fd, want)
            os.fsync(fd)
        except BaseException as error:
            _undo_again(made, error)
            raise
    return made


def undo(made: Made) -> None:
    """Remove a directory that was made, or give it back its metadata; no other. Raises RepairError."""
    if made.before is not None:
        with telling(made.path, DRESSING), _opened(made.parent, made.name) as fd:
            refuse_another(made, os.fstat(fd))
            dress(fd, made.before)
            if made.acl is not None:
                os.setxattr(fd, ACCESS_ACL, made.acl)
            os.fsync(fd)
        return
    with telling(made.path, "removing the directory again"):
        try:
            status = os.stat(made.name, dir_fd=made.parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        refuse_another(made, status)
        os.rmdir(made.name, dir_fd=made.parent.fd)


def sync(directory: Directory) -> None:
    """Make the names in a directory durable. Raises RepairError."""
    with telling(directory.path, "syncing the directory"), _opened(directory, ".") as fd:
        os.fsync(fd)


def refuse_append_only(directory: Directory) -> None:
    """Raise PermissionError where what is staged could be neither put nor removed again."""
    with _opened(directory, ".") as fd:
        if kernel.append_only(fd):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def _undo_again(made: Made, error: BaseException) -> None:
    """Take back what a failed step has begun. Raises LeftoverError where that fails too."""
    try:
        undo(made)
    except PathError as second:
        first = error.reason if isinstance(error, PathError) else str(error) or "interrupted"
        raise LeftoverError(made.path, f"{first}; and taking it back failed: {second.reason}") from None


@contextmanager
def _opened(parent: Directory, name: str) -> Iterator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
    try:
        yield fd
    finally:
        os.close(fd)
