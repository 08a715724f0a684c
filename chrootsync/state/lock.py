"""The lock that keeps repairs of one root apart."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chrootsync.model import ChrootsyncError, LockedError, clause
from chrootsync.state.private import is_private

POLL = 0.1  # seconds between two looks at a lock that another repair holds


@contextmanager
def lock(directory: str, name: str, wait: float) -> Iterator[None]:
    """Hold the lock ``name`` in ``directory``, waiting for it at most ``wait`` seconds.

    The directory is private, because whoever can open a file can take its lock (flock(2)). Raises LockedError, and
    ChrootsyncError where there can be no lock.
    """
    path = os.path.join(directory, name)
    deadline = time.monotonic() + wait
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if not is_private(directory):
            raise PermissionError(None, "others can write there")
        fd = _acquire(path, deadline)
    except BlockingIOError:
        reason = f"another repair of this root is under way and did not end within {wait:g} seconds"
        raise LockedError(f"{reason}; try again, or wait longer with --wait") from None
    except OSError as error:
        advice = "; repair as root" if isinstance(error, PermissionError) else ""
        raise ChrootsyncError(f"{directory}: cannot hold a lock there: {clause(error)}{advice}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child that is just being started may still have the descriptor
        os.close(fd)


def is_held(directory: str, name: str) -> bool:
    """Whether somebody holds a lock, from proc_locks(5): to try it could keep out who is just about to take it."""
    try:
        status = os.stat(os.path.join(directory, name), follow_symlinks=False)
        with open("/proc/locks", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return False
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}".encode()
    return any(b" FLOCK " in line and place in line.split() for line in lines)


def _acquire(path: str, deadline: float) -> int:
    """The descriptor of the locked file that has the name now. Raises BlockingIOError past the deadline.

    Who held the lock before has removed its file: a lock on what has no name any more keeps nobody out.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_name(fd, path):
                return fd
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise
            time.sleep(POLL)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _has_name(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
