"""Opens the file of the state database, makes it, and sets it aside where it is no such thing any more.

Nobody but root, or whoever runs this, can write where it is: what is looked at is still there when SQLite opens it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

from chrootsync.state.marker import sync_directory
from chrootsync.state.private import is_private
from chrootsync.state.schema import VERSION, migrate, version_of
from chrootsync.state.trouble import (
    NAME,
    TROUBLE,
    BadError,
    Place,
    UnusableError,
    clause,
    is_bad,
    is_bad_to_write,
    primary,
)

BESIDE = ("-wal", "-shm", "-journal")
MOST_SET_ASIDE = 3
POLL = 0.05
LONGEST = 16 << 20  # bytes of a value; a damaged row may claim to be much larger
SMALLEST = 512  # no database has smaller pages

SETTINGS = (
    "synchronous = FULL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "mmap_size = 0",
    "trusted_schema = OFF",
    "cell_size_check = ON",
)


# --- For reading --------------------------------------------------------------------------------------------------


def open_to_read(place: Place) -> sqlite3.Connection | None:
    """A connection that writes nothing, None where there is no database. Raises UnusableError, BadError."""
    try:
        if not os.path.lexists(place.directory):
            return None
        _check_directory(place.directory)
        if not _look(place.path):
            return None
        return _connect_to_read(place)
    except TROUBLE as error:
        if is_bad(error):
            raise BadError(f"is damaged ({clause(error)})") from None
        raise UnusableError(
            f"{place.path}: cannot be read ({clause(error)}), so that nobody can tell what was changed by whom"
        ) from None


def _connect_to_read(place: Place) -> sqlite3.Connection:
    """Where SQLite cannot even make the small files beside, nobody writes either, and it can do without them."""
    try:
        return _examined(place, "mode=ro")
    except sqlite3.Error as error:
        refused = primary(error) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if not refused or os.access(place.directory, os.W_OK) or _has_log(place):
            raise
        return _examined(place, "mode=ro&immutable=1")


def _has_log(place: Place) -> bool:
    """Whether there is a log: half of what it holds may be in the database already, so that neither does alone."""
    try:
        return os.stat(f"{place.path}-wal", follow_symlinks=False).st_size > 0
    except FileNotFoundError:
        return False


def _examined(place: Place, how: str) -> sqlite3.Connection:
    with ExitStack() as stack:
        connection = stack.enter_context(closing(_connect(place, place.path, how)))
        _check_version(connection)
        if version_of(connection) < VERSION:
            raise UnusableError(
                f"{place.path}: is of an earlier version of chrootsync; check --fix brings it up to date"
            )
        stack.pop_all()
        return connection


# --- For writing --------------------------------------------------------------------------------------------------


def open_to_write(place: Place, notes: list[str]) -> sqlite3.Connection:
    """A connection to a database that is sound and of this version; what is none is set aside, which a note tells.

    Raises UnusableError, and sqlite3.Error and OSError for what may be over the next time.
    """
    _make_directory(place.directory)
    with _alone(place):
        _remove_leftovers(place)
        try:
            if _look(place.path):
                return _connect_to_write(place)
        except BadError as error:
            notes.append(told(place, str(error), set_aside(place)))
        else:
            _set_leftovers_aside(place)
        _create(place)
        return _connect_to_write(place)


def told(place: Place, reason: str, name: str) -> str:
    """The sentence on a database that was set aside."""
    return (
        f"{place.path}: {reason}; it was set aside as {name}, and what was changed by whom cannot be told until the "
        "next repair"
    )


def _make_directory(directory: str) -> None:
    if not os.path.lexists(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        sync_directory(os.path.dirname(directory))
    _check_directory(directory)


def _connect_to_write(place: Place) -> sqlite3.Connection:
    with suppress(OSError):  # a copy of a backup may be anybody's to read
        os.chmod(place.path, 0o600)
    try:
        return _checked(place)
    except TROUBLE as error:
        if is_bad_to_write(error, place):
            raise BadError(f"is damaged ({clause(error)})") from None
        raise


def _checked(place: Place) -> sqlite3.Connection:
    with ExitStack() as stack:
        connection = stack.enter_context(closing(_connect(place, place.path, "mode=rw")))
        _check_version(connection)
        (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise BadError("is damaged")
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        migrate(connection)
        stack.pop_all()
        return connection


def _create(place: Place) -> None:
    """Make an empty database under another name first: whoever sees its name sees all of it."""
    import tempfile

    fd, path = tempfile.mkstemp(prefix=f"{NAME}.new-", dir=place.directory)
    try:
        with closing(_connect(place, path, "mode=rw")) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            migrate(connection)
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        os.fsync(fd)
        os.rename(path, place.path)
        sync_directory(place.directory)
    except BaseException:
        _remove_leftovers(place)
        raise
    finally:
        os.close(fd)


def _remove_leftovers(place: Place) -> None:
    """Remove what was left of databases that were never finished."""
    for name in os.listdir(place.directory):
        if name.startswith(f"{NAME}.new-"):
            with suppress(OSError):
                os.unlink(os.path.join(place.directory, name))


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Keep others from making or setting aside a database here: runs on other roots may share the directory."""
    fd = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + place.patience
        while not _flock(fd):
            if time.monotonic() >= deadline:
                raise UnusableError(f"{place.directory}: another run is at work there; this one is not remembered")
            time.sleep(POLL)
        yield
    finally:
        os.close(fd)


def _flock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# --- Setting aside ------------------------------------------------------------------------------------------------


def set_aside(place: Place) -> str:
    """Give a database another name, with the files beside it; gives that name. Raises UnusableError."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.localtime(place.now))
    name, number = f"{NAME}.bad-{stamp}", 1
    while os.path.lexists(os.path.join(place.directory, name)):
        number += 1
        name = f"{NAME}.bad-{stamp}-{number}"
    try:
        for suffix in ("", *BESIDE):
            with suppress(FileNotFoundError):
                os.rename(place.path + suffix, os.path.join(place.directory, name) + suffix)
        sync_directory(place.directory)
    except OSError as error:
        reason = f"is damaged and cannot be set aside ({clause(error)})"
        raise UnusableError(f"{place.path}: {reason}; move it away; this run is not remembered") from None
    _forget_oldest(place)
    return name


def set_same_aside(place: Place, identity: tuple[int, int] | None) -> str | None:
    """Set a database aside unless somebody has done so; its new name. Raises UnusableError, OSError."""
    with _alone(place):
        return set_aside(place) if identity is not None and identity == identity_of(place) else None


def identity_of(place: Place) -> tuple[int, int] | None:
    """Device and inode of the database that has the name now."""
    try:
        status = os.lstat(place.path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_leftovers_aside(place: Place) -> None:
    """A log whose database is gone would be taken for that of the next one."""
    if any(os.path.lexists(place.path + suffix) for suffix in BESIDE):
        set_aside(place)


def _forget_oldest(place: Place) -> None:
    """Keep the newest few of what was set aside: a failing disk must not fill up with them."""
    found: dict[str, list[str]] = {}
    for name in os.listdir(place.directory):
        if name.startswith(f"{NAME}.bad-"):
            base = next((name.removesuffix(suffix) for suffix in BESIDE if name.endswith(suffix)), name)
            found.setdefault(base, []).append(name)
    for base in sorted(found)[:-MOST_SET_ASIDE]:
        for name in found[base]:
            with suppress(OSError):
                os.unlink(os.path.join(place.directory, name))


# --- What both have in common -------------------------------------------------------------------------------------


def _check_directory(directory: str) -> None:
    if not is_private(directory):
        reason = "is no directory that only root can write to"
        raise UnusableError(f"{directory}: {reason}, so that nothing in it is believed; give it to root, mode 0700")


def _look(path: str) -> bool:
    """Whether there is a file that may be opened. Raises UnusableError, BadError, OSError.

    It is not opened here: closing it again would release all locks that this process has on it by POSIX's rules.
    """
    for suffix in BESIDE:
        with suppress(FileNotFoundError):
            _check_regular(path + suffix, os.lstat(path + suffix))
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    _check_regular(path, status)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise BadError("could have been written by others")
    if status.st_size < SMALLEST:
        raise BadError("is not a database")  # SQLite would take an empty file for a new one
    return True


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UnusableError(f"{path}: is not a regular file, and is left alone; move it away")


def _check_version(connection: sqlite3.Connection) -> None:
    version = version_of(connection)
    if version > VERSION:
        raise BadError("was written by a newer version of chrootsync")
    if version < 1:
        raise BadError("is not a database of chrootsync")


def _connect(place: Place, path: str, how: str) -> sqlite3.Connection:
    uri = f"file://{urllib.parse.quote(os.fsencode(path))}?{how}"
    connection = sqlite3.connect(uri, uri=True, timeout=place.patience, isolation_level=None)
    with ExitStack() as stack:
        stack.enter_context(closing(connection))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        for setting in SETTINGS:
            connection.execute(f"PRAGMA {setting}")
        stack.pop_all()
    return connection
