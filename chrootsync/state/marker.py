"""The file that tells from its mere presence that something is pending: an unfinished plan, or a reload that is due."""

from __future__ import annotations

import os
from contextlib import suppress

from chrootsync.state.private import is_private

NAME = "pending"


def pending(directory: str | None) -> bool:
    """Whether the state database has, or may have, something that is pending; costs no look into it."""
    return directory is not None and is_private(directory) and os.path.lexists(os.path.join(directory, NAME))


def set_marker(directory: str) -> None:
    """Tell that something is pending; on the disk when this returns. Raises OSError."""
    path = os.path.join(directory, NAME)
    if os.path.lexists(path):
        return
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    sync_directory(directory)


def clear_marker(directory: str) -> None:
    """Tell that nothing is pending any more."""
    with suppress(OSError):
        os.unlink(os.path.join(directory, NAME))


def sync_directory(directory: str) -> None:
    """Have the names in a directory on the disk. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
