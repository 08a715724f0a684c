"""Clears away what a repair that was cut short (a kill, a power cut) left beside its targets.

Only what its journal names is ever touched: by the name that nobody could have guessed, and by the inodes that were
written down before a step took effect. Of these the number alone counts, within the directory: devices may be numbered
anew at each boot.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from chrootsync.model import AbsentError, Copy, PathError, RepairError
from chrootsync.model.frozen import frozen
from chrootsync.root.directories import sync
from chrootsync.root.pool import Directory
from chrootsync.root.read import WalkedChroot
from chrootsync.root.steps import telling
from chrootsync.root.swap import old_name, put_new
from chrootsync.root.walk import join

Keep = Callable[[Copy], str | None]


@frozen
class Leftover:
    """A step that may have been taken: ``staged`` and ``old`` are the inode numbers of what it puts and replaces.

    ``staged`` is None where nothing was staged when the journal was last written, ``removes`` says that the step only
    takes away. ``makes`` are directories that the step may have made; they go where nothing is in them.
    """

    path: str
    temporary: str
    staged: int | None
    old: int | None
    removes: bool = False
    makes: bool = False


def clear(chroot: WalkedChroot, leftover: Leftover, keep: Keep) -> bool:
    """Remove what a step left, keeping the contents of what it replaced; whether it had been taken.

    Raises PathError where the way there is barred, or something could not be removed.
    """
    head, name = os.path.split(leftover.path)
    try:
        directory = chroot.walker.directory(head)
    except AbsentError:
        return False
    with telling(leftover.path, "clearing up after an interrupted repair"):
        _give_back(directory, leftover, name)
        if leftover.makes:
            _remove_empty(directory, name)
        there = _status(directory, name)
        replaced = not _is(there, leftover.old)
        cleared = [_remove(chroot, directory, each, leftover, keep if replaced else None) for each in _names(leftover)]
        if any(cleared):
            sync(directory)
    if leftover.removes:
        return there is None and leftover.old is not None
    return _is(there, leftover.staged)


def _names(leftover: Leftover) -> tuple[str, str]:
    return leftover.temporary, old_name(leftover.temporary)


def _give_back(directory: Directory, leftover: Leftover, name: str) -> None:
    """Where nothing has the name, halfway through a plain exchange, what stood there gets it back."""
    if leftover.removes or leftover.old is None or _status(directory, name) is not None:
        return
    old = old_name(leftover.temporary)
    if _is(_status(directory, old), leftover.old):
        put_new(directory.fd, old, name)


def _remove(chroot: WalkedChroot, directory: Directory, name: str, leftover: Leftover, keep: Keep | None) -> bool:
    """Remove one temporary, if it is what the journal says; what may not be ours is left alone, and told."""
    status = _status(directory, name)
    if status is None:
        return False
    path = join(directory.path, name)
    if not _is_ours(status, leftover):
        raise RepairError(path, "an interrupted repair left this name to something else; look at it and remove it")
    if keep is not None and stat.S_ISREG(status.st_mode) and _is(status, leftover.old):
        with suppress(PathError):
            keep(chroot.look(path))
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(name, dir_fd=directory.fd)
    else:
        os.unlink(name, dir_fd=directory.fd)
    return True


def _remove_empty(directory: Directory, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=directory.fd)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise


def _is(status: os.stat_result | None, number: int | None) -> bool:
    return status is not None and status.st_ino == number


def _is_ours(status: os.stat_result, leftover: Leftover) -> bool:
    """Before a step is about to take effect its name alone is written down: what has it is what was being staged."""
    if leftover.staged is None and leftover.old is None:
        return status.st_uid in (0, os.geteuid()) or stat.S_ISLNK(status.st_mode)
    return _is(status, leftover.staged) or _is(status, leftover.old)


def _status(directory: Directory, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
