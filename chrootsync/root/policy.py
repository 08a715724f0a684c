"""Which directories and links may be passed on a walk: on the host side, inside a chroot, to configuration files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from chrootsync.model import UnsafeError

MOUNTED = "something is mounted here; unmount it, or make it an instance of its own"

Policy = Callable[[str, os.stat_result], None]
"""Called with the walked path and its status for each directory and link that is passed; raises UnsafeError."""


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


def inside(trusted: Policy, device: int) -> Policy:
    """The policy inside a chroot: ``trusted``, and on the device of the chroot."""

    def check(path: str, status: os.stat_result) -> None:
        # Nothing can be mounted on a link; in an overlay its device is a lower layer's.
        if not stat.S_ISLNK(status.st_mode) and status.st_dev != device:
            raise UnsafeError(path, MOUNTED)
        trusted(path, status)

    return check
