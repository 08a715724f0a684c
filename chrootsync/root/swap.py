"""Swaps names within one directory, by the best means that its file system knows."""

from __future__ import annotations

import errno
import os
import stat

from chrootsync.root import kernel


def old_name(temporary: str) -> str:
    """The second name that what is replaced has while two names are swapped in several steps."""
    return f"{temporary}-old"


def put_new(fd: int, temporary: str, name: str) -> bool:
    """Give a staged inode its name, which must be free; false where the file system knows no NOREPLACE."""
    try:
        kernel.rename(fd, temporary, name, kernel.NOREPLACE)
    except OSError as error:
        if error.errno not in kernel.UNSUPPORTED:
            raise
        _put_new_plainly(fd, temporary, name)
        return False
    return True


def _put_new_plainly(fd: int, temporary: str, name: str) -> None:
    """Linking refuses a name that is taken; for what can have no second name, a look must do."""
    try:
        os.link(temporary, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP):
            raise
        if _exists(name, fd):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        return
    try:
        os.unlink(temporary, dir_fd=fd)
    except BaseException:
        os.unlink(name, dir_fd=fd)
        raise


def exchange(fd: int, temporary: str, name: str) -> bool:
    """Swap two names; false where the file system knows no EXCHANGE.

    Without it the old inode keeps a second name while the new one is renamed over it, so that the target is whole at
    every moment. A directory can have no second name: there the target is missing for a moment.
    """
    try:
        kernel.rename(fd, temporary, name, kernel.EXCHANGE)
    except OSError as error:
        if error.errno not in kernel.UNSUPPORTED:
            raise
        _exchange_plainly(fd, temporary, name)
        return False
    return True


def _exchange_plainly(fd: int, temporary: str, name: str) -> None:
    old = old_name(temporary)
    linked = not _is_directory(name, fd) and not _is_directory(temporary, fd)
    if linked:
        os.link(name, old, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    else:
        os.rename(name, old, src_dir_fd=fd, dst_dir_fd=fd)
    try:
        os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        if linked:
            os.unlink(old, dir_fd=fd)
        else:
            os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)
        raise
    try:
        os.rename(old, temporary, src_dir_fd=fd, dst_dir_fd=fd)
    except BaseException:
        os.rename(name, temporary, src_dir_fd=fd, dst_dir_fd=fd)
        os.rename(old, name, src_dir_fd=fd, dst_dir_fd=fd)
        raise


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(name: str, directory: int) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
