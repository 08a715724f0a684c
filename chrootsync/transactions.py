"""Which package managers are in the middle of a transaction, and what has to wait for its end.

A copy made meanwhile could be one of a set of which the other half is yet to come. That a manager is at work is seen
from its lock, which is never taken here, not even for a moment: a package manager that finds it taken fails.

- dpkg and apt hold POSIX record locks on two files (lib/dpkg/dbmodify.c), rpm on one (lib/rpmlock.c).
- pacman creates a file, keeps it open for writing, and removes it (lib/libalpm/handle.c). One that was killed leaves it
  behind.
- apk holds a flock(2) lock (src/database.c, 2.x and 3.x; some early 3.x had the file in /run).

A lock held by an ancestor of this process is no reason to wait: that is a package manager which calls chrootsync, by a
hook or a maintainer script, and which waits for it to end.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from typing import NamedTuple

from chrootsync import procfs
from chrootsync.model import Drift, PathError, Reader, Source
from chrootsync.model.frozen import frozen

NEVER_WAIT = ("/etc/resolv.conf", "/etc/hosts")
"""What mail cannot do without, and what a network change may have changed just now. No package brings them in parts."""

RECORD_LOCK = "@hhqqi0q"  # struct flock of fcntl(2): type, whence, start, length, pid
CLOCK_ERROR = 1.0  # seconds; in doubt a file waits


@frozen
class Transaction:
    """A package manager at work: ``pid`` and ``program`` hold the lock, and are None where they cannot be seen.

    ``since`` is the time (seconds since the epoch) from which on it may have put files into place that it has not put
    into its database yet; None where the database tells of those as well.
    """

    manager: str
    lock: str
    pid: int | None = None
    program: str | None = None
    since: float | None = None


def under_way(root: Reader) -> tuple[Transaction, ...]:
    """The package managers that hold a lock; none where nothing can be at work, as in an image.

    A lock file that cannot be read counts as free: only root repairs the live host.
    """
    if not root.live:
        return ()
    held = list(_held(root))
    if not held:
        return ()
    own = frozenset(_lineage(os.getpid()))
    return tuple(_transaction(lock, holders) for lock, holders in held if not holders & own)


def must_wait(root: Reader, drift: Drift, working: Iterable[Transaction] = ()) -> bool:
    """Whether a drift's source belongs to a package, or may be part of one that a manager is just bringing in."""
    source = drift.entry.source
    if source is None or _never_waits(root, source):
        return False
    if drift.package is not None:
        return True
    want = drift.entry.want
    if want is None or want.identity is None:
        return False
    changed = want.identity[4] / 1e9
    return any(one.since is not None and changed >= one.since - CLOCK_ERROR for one in working)


def name(working: Iterable[Transaction]) -> str:
    """Who is at work, for people: each manager once, as the program that holds its lock."""
    first = {one.manager: one for one in reversed(list(working))}
    return " and ".join(
        manager if one.pid is None else f"{one.program or manager} (process {one.pid})"
        for manager, one in sorted(first.items())
    )


def _never_waits(root: Reader, source: str) -> bool:
    if source in NEVER_WAIT:
        return True
    # It may be a rule's own wish to have what /etc/resolv.conf leads to, as /run/systemd/resolve/stub-resolv.conf.
    place = _resolved(root, source)
    return place is not None and any(place == _resolved(root, path) for path in NEVER_WAIT)


def _resolved(root: Reader, path: str) -> str | None:
    try:
        return root.resolve(path)
    except PathError:
        return None


# --- Locks --------------------------------------------------------------------------------------------------------

Holders = frozenset[int]
"""The processes that hold a lock; empty where it is held by one that cannot be seen from here."""


def _held(root: Reader) -> Iterator[tuple[_Lock, Holders]]:
    """The locks that are held; one that has two paths once."""
    seen = set()
    for lock in LOCKS:
        try:
            with closing(root.source(lock.path)) as file:
                place = _place(file)
                holders = lock.holders(file) if place not in seen else None
        except (PathError, OSError):
            continue
        seen.add(place)
        if holders is not None:
            yield lock, holders


def _place(file: Source) -> tuple[int, int]:
    """The device and inode of a file."""
    return file.state.identity[:2] if file.state.identity is not None else (0, 0)


def _by_record_lock(file: Source) -> Holders | None:
    """Who holds a POSIX record lock for writing; who only reads, as rpm's queries do in places, changes nothing.

    F_GETLK gives pid 0 for a process of another PID namespace, and -1 for a lock of an open file description.
    """
    wanted = struct.pack(RECORD_LOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    answer = struct.unpack(RECORD_LOCK, fcntl.fcntl(file.fileno(), fcntl.F_GETLK, wanted))
    kind, pid = answer[0], answer[4]
    if kind == fcntl.F_UNLCK:
        return None
    return frozenset({pid} if pid > 0 else ())


def _by_existence(file: Source) -> Holders | None:
    """Who has a file open whose existence is the lock; nobody, and it was left behind.

    Where the processes of others are hidden (hidepid of proc(5)), or /proc is not mounted, not even the first is there.
    """
    numbers = procfs.numbers()
    holders, complete = _writers(file, numbers)
    return holders if holders or not complete or 1 not in numbers else None


def _by_flock(file: Source) -> Holders | None:
    """Who holds a flock(2) lock for writing.

    /proc/locks names the process, and the file by a device that is not what stat(2) tells on Btrfs and overlays: there
    it is the process that must have the file open.
    """
    device, inode = _place(file)
    flocks = list(_flocks())
    exact = {pid for pid, place in flocks if place == (os.major(device), os.minor(device), inode)}
    holders, _ = _writers(file, {pid for pid, _ in flocks} - exact)
    return holders | exact or None


def _flocks() -> Iterator[tuple[int, tuple[int, int, int]]]:
    """The flock(2) locks for writing, from proc_locks(5): the process, and (major, minor, inode) of the file."""
    with open("/proc/locks", "rb") as file:
        for line in file:
            fields = line.split()  # "1: FLOCK ADVISORY WRITE 2001 08:01:7864554 0 EOF"; who waits has "->" before FLOCK
            if fields[1:2] == [b"FLOCK"] and fields[3:4] == [b"WRITE"] and len(fields) > 5:
                major, minor, inode = fields[5].split(b":")
                yield int(fields[4]), (int(major, 16), int(minor, 16), int(inode))


class _Lock(NamedTuple):
    """A lock file, and how to see who holds it.

    ``unlisted`` are the programs that, while they hold it, put files into place which no database names yet; None means
    all. Others hold the lock while they ask a question, or their database tells.
    """

    manager: str
    path: str
    holders: Callable[[Source], Holders | None]
    unlisted: frozenset[str] | None = frozenset()


LOCKS = (
    # Checksums, which tell of the package that is being unpacked, are optional. apt unpacks by dpkg, and asks before.
    _Lock("dpkg", "/var/lib/dpkg/lock-frontend", _by_record_lock, frozenset({"dpkg"})),
    _Lock("dpkg", "/var/lib/dpkg/lock", _by_record_lock, frozenset({"dpkg"})),
    _Lock("rpm", "/usr/lib/sysimage/rpm/.rpm.lock", _by_record_lock, None),
    _Lock("rpm", "/var/lib/rpm/.rpm.lock", _by_record_lock, None),
    _Lock("pacman", "/var/lib/pacman/db.lck", _by_existence, None),
    _Lock("apk", "/lib/apk/db/lock", _by_flock, None),
    _Lock("apk", "/usr/lib/apk/db/lock", _by_flock, None),
    _Lock("apk", "/run/apk/db.lock", _by_flock, None),
)
"""Every lock of a package manager, the one that tells most about it first."""


# --- Processes ----------------------------------------------------------------------------------------------------


def _transaction(lock: _Lock, holders: Holders) -> Transaction:
    pid = min(holders, default=None)
    process = None if pid is None else procfs.process(pid)
    if process is None:
        return Transaction(manager=lock.manager, lock=lock.path, pid=pid)
    unlisted = lock.unlisted is None or process.name in lock.unlisted
    began = process.began if unlisted else None
    return Transaction(manager=lock.manager, lock=lock.path, pid=pid, program=process.name, since=began)


def _lineage(pid: int) -> Iterator[int]:
    """A process and its ancestors, as far as they are in the same PID namespace."""
    while pid > 0:
        yield pid
        process = procfs.process(pid)
        pid = 0 if process is None else process.parent


def _writers(file: Source, pids: Iterable[int]) -> tuple[Holders, bool]:
    """Those of the processes that have a file open for writing, and whether all of them could be seen.

    Whoever only looks at it, as this process does now, has it open as well, but not for writing.
    """
    found, complete = set(), True
    for pid in pids:
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            complete = False
        except OSError:  # it has ended
            continue
        else:
            if any(_writes(f"/proc/{pid}/fd/{descriptor}", file) for descriptor in descriptors):
                found.add(pid)
    return frozenset(found), complete


def _writes(descriptor: str, file: Source) -> bool:
    """Whether a descriptor is open for writing on a file.

    Its name comes first: to look at whatever else a process has open could block, on a network file system.
    """
    with suppress(OSError):
        target = os.readlink(descriptor)
        if os.path.basename(target) == os.path.basename(file.path) and os.lstat(descriptor).st_mode & 0o200:
            status = os.stat(descriptor)
            return (status.st_dev, status.st_ino) == _place(file)
    return False
