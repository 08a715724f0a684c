"""Whether what is in a directory can be believed."""

from __future__ import annotations

import os
import stat


def is_private(directory: str) -> bool:
    """Whether only root, or whoever runs this, can have written into a directory."""
    try:
        status = os.stat(directory, follow_symlinks=False)
    except OSError:
        return False
    mine = status.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(status.st_mode) and mine and not status.st_mode & 0o022
