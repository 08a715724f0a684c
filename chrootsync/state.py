"""What chrootsync remembers between runs, and the lock that keeps repairs apart.

Everything here can be lost at any time: then it is found out anew. Files are replaced whole, never changed in place.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict

from chrootsync.model import ChrootsyncError, LockedError, Record

LIMIT = 64 << 20
POLL = 0.1  # seconds between two looks at a lock that another repair holds


class Store:
    """Small JSON files in one directory that only its owner can write; without a directory nothing is kept."""

    def __init__(self, directory: str | None) -> None:
        """Keep files in ``directory``, which is made when something is first kept."""
        self.directory = directory

    def get(self, name: str, fingerprint: str) -> object | None:
        """The value last put under ``name``, if it was put with the same fingerprint."""
        kept = self._load(f"cache-{_file_name(name)}.json")
        if isinstance(kept, dict) and kept.get("fingerprint") == fingerprint:
            value: object = kept.get("value")
            return value
        return None

    def put(self, name: str, fingerprint: str, value: object) -> None:
        """Keep a value; failing to do so is no error."""
        with suppress(OSError):
            self._save(f"cache-{_file_name(name)}.json", {"fingerprint": fingerprint, "value": value})

    def reloads(self) -> dict[str, Record]:
        """What is remembered of each instance's reloads; what makes no sense is forgotten."""
        kept = self._load("reloads.json")
        found: dict[str, Record] = {}
        for name, fields in kept.items() if isinstance(kept, dict) else ():
            with suppress(TypeError, ValueError, OverflowError):
                record = Record(**fields)
                found[name] = Record(
                    last=float(record.last),
                    pending=bool(record.pending),
                    since=float(record.since),
                    restart=bool(record.restart),
                    failures=max(0, min(int(record.failures), 20)),
                )
        return found

    def remember(self, reloads: Mapping[str, Record]) -> None:
        """Keep what is to be remembered of reloads. Raises ChrootsyncError where a pending one would be lost."""
        records = {name: asdict(record) for name, record in reloads.items() if record != Record()}
        try:
            if records or self._load("reloads.json") is not None:
                self._save("reloads.json", records)
        except OSError as error:
            if any(record.pending for record in reloads.values()):
                raise ChrootsyncError(
                    f"{self.directory}: cannot keep in mind that a reload is due ({error.strerror}); reload by hand"
                ) from None

    def _load(self, name: str) -> object | None:
        if self.directory is None or not _is_private(self.directory):
            return None
        try:
            with open(os.path.join(self.directory, name), "rb") as file:
                return json.loads(file.read(LIMIT))  # type: ignore[no-any-return]  # JSON is whatever it is
        except (OSError, ValueError, RecursionError):
            return None

    def _save(self, name: str, value: object) -> None:
        if self.directory is None:
            return
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        if not _is_private(self.directory):
            raise PermissionError(None, "others can write there", self.directory)
        path = os.path.join(self.directory, name)
        temporary = f"{path}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


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
        if not _is_private(directory):
            raise PermissionError(None, "others can write there")
        fd = _acquire(path, deadline)
    except BlockingIOError:
        reason = f"another repair of this root is under way and did not end within {wait:g} seconds"
        raise LockedError(f"{reason}; try again, or wait longer with --wait") from None
    except OSError as error:
        advice = "; repair as root" if isinstance(error, PermissionError) else ""
        raise ChrootsyncError(f"{directory}: cannot hold a lock there: {error.strerror}{advice}") from None
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)
        fcntl.flock(fd, fcntl.LOCK_UN)  # a child that is just being started may still have the descriptor
        os.close(fd)


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


def _is_private(directory: str) -> bool:
    """Whether only root, or whoever runs this, can have written into a directory."""
    try:
        status = os.stat(directory, follow_symlinks=False)
    except OSError:
        return False
    mine = status.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(status.st_mode) and mine and not status.st_mode & 0o022


def _file_name(name: str) -> str:
    return re.sub(r"[^a-z0-9-]", "_", name.lower())
