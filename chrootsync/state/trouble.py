"""What can be wrong with the state database: whether it is damaged, or only out of reach for now."""

from __future__ import annotations

import os
import sqlite3

from chrootsync.model.frozen import frozen
from chrootsync.state.codec import GarbledError

NAME = "state.db"
WRITE_VERSION = 18  # where the header says which version of the format a writer must know

# What may be over the next time; with any other error the file is not what it should be.
PASSING = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_RANGE,
    }
)
CLAUSES = {
    sqlite3.SQLITE_BUSY: "another program has it locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
}

Trouble = sqlite3.Error | GarbledError | OSError | UnicodeError
TROUBLE = (sqlite3.Error, GarbledError, OSError, UnicodeError)  # the last where SQLite quotes what is no text


class UnusableError(Exception):
    """The database cannot be used this time; a sentence that says why."""


class BadError(Exception):
    """The file is no database of this version of chrootsync; a clause that says why."""


@frozen
class Place:
    """Where a database is, what time it is, and how many seconds to wait for others."""

    directory: str
    now: float
    patience: float

    @property
    def path(self) -> str:
        """The file of the database."""
        return os.path.join(self.directory, NAME)


def primary(error: Trouble) -> int | None:
    """SQLite's code of an error, without its details."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_bad(error: Trouble) -> bool:
    """Whether an error tells that the database is damaged, rather than out of reach for now."""
    code = primary(error)
    if code is None:  # Python's, and not SQLite's
        return isinstance(error, (GarbledError, UnicodeError, sqlite3.OperationalError))
    return code not in PASSING


def is_bad_to_write(error: Trouble, place: Place) -> bool:
    """The same for who may write.

    SQLite calls a file read-only whose header says so (fileformat2.html, 1.3.2: no version above 2 may be written to),
    and one that it could not open for writing, for whatever reason and however briefly.
    """
    if primary(error) != sqlite3.SQLITE_READONLY:
        return is_bad(error)
    try:
        with open(place.path, "rb") as file:
            return file.read(WRITE_VERSION + 1)[WRITE_VERSION:] not in (b"\x01", b"\x02")
    except OSError:
        return False


def clause(error: Trouble) -> str:
    """What went wrong, for a sentence."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, (GarbledError, UnicodeError)):
        return "what it holds makes no sense"
    return CLAUSES.get(primary(error) or 0, str(error))
