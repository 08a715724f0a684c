"""Gives open inodes their owner, mode, label and ACL."""

from __future__ import annotations

import os
from contextlib import suppress

from chrootsync.model import State

ACCESS_ACL = "system.posix_acl_access"
DEFAULT_ACL = "system.posix_acl_default"
LABEL = "security.selinux"


def dress(fd: int, want: State) -> None:
    """Give an open inode its owner and mode, in this order: chown(2) may clear mode bits."""
    os.fchown(fd, number(want.uid), number(want.gid))
    if want.mode is not None:
        os.fchmod(fd, want.mode)


def number(owner: int | None) -> int:
    """A user or group as chown(2) takes it: -1 leaves it as it is."""
    return -1 if owner is None else owner


def strip(fd: int) -> None:
    """Remove the ACLs that a new inode got from its directory's default ACL."""
    for name in (ACCESS_ACL, DEFAULT_ACL):
        with suppress(OSError):
            os.removexattr(fd, name)


def access_acl(fd: int) -> bytes | None:
    """The access ACL of an open inode; None where there is none."""
    try:
        return os.getxattr(fd, ACCESS_ACL)
    except OSError:
        return None


def copy_label(directory: int, name: str, fd: int) -> None:
    """Carry over the SELinux label of what is replaced; where there is no SELinux there is none."""
    with suppress(OSError):
        old = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.setxattr(fd, LABEL, os.getxattr(f"/proc/self/fd/{old}", LABEL))
        finally:
            os.close(old)
