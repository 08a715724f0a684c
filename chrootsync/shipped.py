"""Where the files that come with chrootsync lie: in a wheel inside the package, in a checkout beside it."""

from __future__ import annotations

import os
from typing import Literal

from chrootsync.model import ChrootsyncError


def directory(kind: Literal["rules", "systemd"]) -> str:
    """The folder of shipped rule sets or unit files, as an absolute path.

    Raises ChrootsyncError where the installation lacks it.
    """
    package = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(package, "_shipped", kind)
    if os.path.isdir(inside):
        return inside
    checkout = os.path.dirname(package)
    beside = os.path.join(checkout, kind)
    # In site-packages a folder "rules" may belong to anybody; only a checkout has the project file next to it.
    if os.path.isfile(os.path.join(checkout, "pyproject.toml")) and os.path.isdir(beside):
        return beside
    raise ChrootsyncError(f"{inside}: is missing; install chrootsync again")
