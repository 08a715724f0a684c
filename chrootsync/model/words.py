"""The words that everything is said with: kinds, severities, remedies, exit statuses."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What is wrong with an entry."""

    MISSING = "missing"
    OUTDATED = "outdated"
    MODIFIED = "modified"
    DIFFERS = "differs"
    METADATA = "metadata"
    TYPE = "type"
    ORPHAN = "orphan"
    BAD_SOURCE = "bad-source"
    BAD_INSTANCE = "bad-instance"
    UNREADABLE = "unreadable"
    UNRESOLVED = "unresolved"
    UNREACHABLE = "unreachable"
    UNSAFE = "unsafe"
    CONTESTED = "contested"
    HELD = "held"
    STALE_PROCESS = "stale-process"


class Severity(StrEnum):
    """How much a drift weighs: errors give exit 1, warnings only with --strict, info never."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Remedy(StrEnum):
    """What a repair does about a drift."""

    COPY = "copy"
    CREATE = "create"
    REPLACE = "replace"
    REMOVE = "remove"
    RELOAD = "reload"
    NONE = "none"


class Presence(StrEnum):
    """Whether a chroot must hold what a rule names, or only keep it fresh where it is there already."""

    REQUIRED = "required"
    IF_PRESENT = "if-present"


class OnChange(StrEnum):
    """What an instance needs after a copy was replaced."""

    RELOAD = "reload"
    RESTART = "restart"
    NOTHING = "nothing"


class OnConflict(StrEnum):
    """What happens to a copy that chrootsync cannot tell to be its own."""

    COPY = "copy"
    KEEP = "keep"


class FileType(StrEnum):
    """The type of a directory entry, as inode(7) lists them."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    SOCKET = "socket"
    FIFO = "fifo"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"


class Status(StrEnum):
    """What became of a drift in a repair."""

    REPAIRED = "repaired"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING = "waiting"
    UNKNOWN = "unknown"


class Answer(StrEnum):
    """How a lookup inside a chroot compares with the same one outside."""

    SAME = "same"
    DIFFERS = "differs"
    FAILS_INSIDE = "fails-inside"


class Code:
    """Exit statuses, the same for every verb."""

    OK = 0
    DRIFT = 1
    USAGE = 2
    FAILED = 3
    RELOAD = 4
    LOCKED = 5
    BUG = 70
    INTERRUPTED = 130
