"""Expected errors: one sentence for the user, and an exit status."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from chrootsync.model.words import Code

_WAYS = {
    errno.EDQUOT: "make room there, or raise the quota",
    errno.ELOOP: "one of them leads back to itself; mend it",
    errno.EMFILE: "raise the limit: ulimit -n, or LimitNOFILE= of the unit",
    errno.ENFILE: "raise fs.file-max, by sysctl",
    errno.ENOSPC: "make room there",
}


class ChrootsyncError(Exception):
    """An expected error: one sentence that says what, where and what to do; ``code`` is the exit status."""

    code: int = Code.FAILED


class ConfigError(ChrootsyncError):
    """Usage, configuration or rules are wrong; ``problems`` holds one sentence for each mistake."""

    code = Code.USAGE

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class LockedError(ChrootsyncError):
    """Another repair holds the lock."""

    code = Code.LOCKED


class PathError(ChrootsyncError):
    """A path cannot be used; ``path`` is the path as asked for, ``reason`` a clause without the path."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class AbsentError(PathError):
    """Nothing is at the path (ENOENT, ENOTDIR on the way)."""


class UnreadableError(PathError):
    """The path cannot be seen or read with these rights, or reading it failed."""


class ReplacedError(UnreadableError):
    """Another thing is at the path than was looked at there a moment ago."""


class NotAFileError(UnreadableError):
    """Something else than a regular file is at the path."""


class UnsafeError(PathError):
    """The way to the path, or the thing itself, could be used against root; the reason says how to mend it."""


class DoubtfulError(UnsafeError):
    """Somebody else than root could have written a file; ``settings`` are what it says."""

    def __init__(self, error: UnsafeError, settings: Mapping[str, str]) -> None:
        super().__init__(error.path, error.reason)
        self.settings = settings


class RepairError(PathError):
    """A step of a repair failed; what it belongs to is unchanged."""


def clause(error: OSError) -> str:
    """What an error of the system says, as a clause, with what to do about it where that is the same anywhere."""
    what = (error.strerror or str(error)).lower()
    way = _WAYS.get(error.errno or 0)
    return what if way is None else f"{what} ({way})"
