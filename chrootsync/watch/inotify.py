"""Directory watches on one inotify descriptor, see inotify(7)."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from dataclasses import dataclass, field

from chrootsync.watch.places import Places

# <sys/inotify.h>. Left out are IN_OPEN, IN_ACCESS and IN_CLOSE_NOWRITE: reading must wake nobody, for a pass reads all.
MODIFY, ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, MOVE_SELF = (
    0x2, 0x4, 0x8, 0x40, 0x80, 0x100, 0x200, 0x400, 0x800,
)  # fmt: skip
OVERFLOW, IGNORED = 0x4000, 0x8000
ONLYDIR, DONT_FOLLOW, EXCL_UNLINK = 0x1000000, 0x2000000, 0x4000000
MASK = (
    MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF | MOVE_SELF
    | ONLYDIR | DONT_FOLLOW | EXCL_UNLINK
)  # fmt: skip
HEADER = struct.Struct("iIII")  # watch descriptor, mask, cookie, length of the name
BUFFER = 1 << 16  # bytes of one reading, some thousand events


@dataclass(frozen=True, slots=True)
class Armed:
    """What came of arming watches: whether any is new, and by directory why it could not be watched."""

    fresh: bool
    deaf: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Watch:
    """A directory under watch, by each of its paths the names that matter, and those together for quick looking up."""

    paths: dict[str, frozenset[bytes] | None]
    names: frozenset[bytes] | None = frozenset()

    def settle(self) -> None:
        """Work out the names together."""
        several = list(self.paths.values())
        self.names = None if None in several else frozenset().union(*(names for names in several if names is not None))


class Inotify:
    """One descriptor for all watches. ``read`` belongs to one thread, everything else to any."""

    def __init__(self) -> None:
        """Open it. Raises OSError, as where the limit fs.inotify.max_user_instances is reached."""
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._init, self._add, self._remove = libc.inotify_init1, libc.inotify_add_watch, libc.inotify_rm_watch
        except AttributeError:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
        self._add.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        self._fd = _checked(self._init(os.O_CLOEXEC | os.O_NONBLOCK))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)
        self._lock = threading.Lock()
        self._watches: dict[int, _Watch] = {}
        self._deaf: frozenset[str] = frozenset()

    def close(self) -> None:
        """Close it, once nobody reads any more."""
        os.close(self._fd)
        os.close(self._wake)

    def watch(self, places: Places) -> Armed:
        """Watch these places and no others.

        Each is armed anew, for its path may lead to another directory by now. A watch is new where a change could have
        been missed until now: another directory, or names that did not matter before.
        """
        with self._lock:
            before, watches, deaf = self._watches, dict[int, _Watch](), dict[str, str]()
            fresh = False
            for directory, names in sorted(places.items()):
                wanted = None if names is None else frozenset(map(os.fsencode, names))
                try:
                    number = _checked(self._add(self._fd, os.fsencode(directory), MASK))
                except OSError as error:
                    # What is not there any more is heard of by its name in the directory above, which was armed before.
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                        deaf[directory] = reason(error)
                    continue
                watches.setdefault(number, _Watch({})).paths[directory] = wanted
                fresh = fresh or not _covers(before.get(number), directory, wanted)
            for number in before.keys() - watches.keys():
                self._remove(self._fd, number)  # where it is gone by itself, that is EINVAL, and as well
            for watch in watches.values():
                watch.settle()
            fresh = fresh or not self._deaf.issuperset(deaf)
            self._watches, self._deaf = watches, frozenset(deaf)
        return Armed(fresh=fresh, deaf=deaf)

    def read(self) -> tuple[list[str], bool]:
        """Wait for changes: the directories where something that matters changed, and whether events were lost.

        Both are empty after ``wake``.
        """
        self._poll.poll()
        try:
            data = os.read(self._fd, BUFFER)
        except BlockingIOError:
            return [], False
        with self._lock:
            return self._sift(data)

    def wake(self) -> None:
        """Let whoever waits in ``read`` come back, now and ever after."""
        os.eventfd_write(self._wake, 1)

    def _sift(self, data: bytes) -> tuple[list[str], bool]:
        changed: set[int] = set()
        gone: dict[int, _Watch] = {}
        lost, offset, watches = False, 0, self._watches
        while offset < len(data):
            number, mask, _, length = HEADER.unpack_from(data, offset)
            begin = offset + HEADER.size
            offset = begin + length
            watch = watches.get(number)
            if watch is None:
                lost = lost or bool(mask & OVERFLOW)
            elif not length or watch.names is None or data[begin:offset].rstrip(b"\0") in watch.names:
                changed.add(number)
                if mask & IGNORED:
                    gone[number] = watches.pop(number)
        paths = {path for number in changed for path in (watches.get(number) or gone[number]).paths}
        return sorted(paths), lost


def _covers(watch: _Watch | None, directory: str, wanted: frozenset[bytes] | None) -> bool:
    """Whether changes of the wanted names were heard of already."""
    if watch is None or directory not in watch.paths:
        return False
    return watch.names is None or (wanted is not None and wanted <= watch.names)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def reason(error: OSError) -> str:
    """Why something cannot be watched, a clause; of limits which."""
    if error.errno == errno.ENOSPC:
        return "there are too many watches already; raise fs.inotify.max_user_watches (sysctl)"
    if error.errno == errno.EMFILE:
        return "there are too many instances of it already; raise fs.inotify.max_user_instances (sysctl)"
    return (error.strerror or str(error)).lower()
