"""The handles of a repair's steps, and what tells whether a thing is still the one that a step was about."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from chrootsync.model import FileType, RepairError, State, clause
from chrootsync.model.frozen import frozen
from chrootsync.root import contents
from chrootsync.root.files import state_of
from chrootsync.root.pool import Directory

CHANGED = "it was changed after it was compared; run check --fix once more"

HINTS = {
    errno.EPERM: " (is something here immutable or append-only? lsattr tells, chattr -ia mends)",
    errno.EROFS: " (is it mounted so, or a chroot that the units do not know yet? then run chrootsync install systemd)",
}
"""What an error may come of, and the way out."""


class LeftoverError(RepairError):
    """A step failed, and what it had made could not be removed again: the reason names both."""


@contextmanager
def telling(path: str, doing: str) -> Iterator[None]:
    """Turn an OSError into a RepairError that says what was being done."""
    try:
        yield
    except OSError as error:
        reason = clause(error) + HINTS.get(error.errno or 0, "")
        raise RepairError(path, f"{doing} failed: {reason}") from None


@frozen
class Staged:
    """A new inode beside its target: ``before`` is what it replaces (None: nothing), ``source`` what it was read from.

    ``inode`` is (device, inode) of what was staged: nothing else is ever removed. It is None where nothing is put in
    the place of what is taken out.
    """

    path: str
    directory: Directory
    temporary: str
    name: str
    inode: tuple[int, int] | None
    before: State | None
    source: tuple[int, int, int, int, int] | None = None
    sha256: str | None = None


@frozen
class Made:
    """A directory that was made, or whose metadata was ``before`` and its access ACL ``acl``.

    ``inode`` is its (device, inode): nothing else is ever removed or changed.
    """

    path: str
    parent: Directory
    name: str
    inode: tuple[int, int]
    before: State | None
    acl: bytes | None = None


def is_compared(status: os.stat_result, state: State) -> bool:
    """Whether a status is of the inode that was compared, unchanged to the last nanosecond."""
    return contents.identity(status) == state.identity or (_is_restless(state) and _is_inode_of(status, state))


def is_seen(status: os.stat_result, state: State) -> bool:
    """Whether a status is of the inode that was seen, unchanged; a rename itself may change the ctime."""
    return (_is_restless(state) and _is_inode_of(status, state)) or (
        state.identity is not None
        and contents.identity(status)[:4] == state.identity[:4]
        and _same_metadata(state_of(status), state)
    )


def is_inode(status: os.stat_result | None, inode: tuple[int, int] | None) -> bool:
    """Whether a status is of an inode, given as (device, inode)."""
    return status is not None and (status.st_dev, status.st_ino) == inode


def refuse_another(made: Made, status: os.stat_result) -> None:
    """What took the place of a directory since is somebody else's."""
    if not is_inode(status, made.inode):
        raise RepairError(made.path, "something else stands here now, and is left alone")


def is_directory_of(status: os.stat_result, state: State) -> bool:
    """Whether a status is of the directory that was seen; what is in it may have changed."""
    return _is_inode_of(status, state) and _same_metadata(state_of(status), state)


def _is_restless(state: State) -> bool:
    """Whether somebody else owns a file: to wait until he has done writing would let him hold up the repair for ever.

    What is lost then is what he wrote, and what came out of the swap is kept like any other copy.
    """
    return state.type is FileType.FILE and state.uid not in (0, os.geteuid())


def _is_inode_of(status: os.stat_result, state: State) -> bool:
    return state.identity is not None and (status.st_dev, status.st_ino) == state.identity[:2]


def _same_metadata(one: State, other: State) -> bool:
    return (one.type, one.mode, one.uid, one.gid) == (other.type, other.mode, other.uid, other.gid)
