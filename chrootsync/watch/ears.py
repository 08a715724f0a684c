"""Hears of changes: watchdog's observers, with an inotify emitter of our own, and polling where there is no inotify.

watchdog's own inotify emitter takes a thread and an inotify descriptor for each directory, is woken by whoever reads,
and keeps to itself that the kernel's queue overflowed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from watchdog.events import DirModifiedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventEmitter, EventQueue, ObservedWatch

from chrootsync.watch.inotify import Armed, Inotify, reason
from chrootsync.watch.places import Places

if TYPE_CHECKING:
    from watchdog.observers.polling import PollingObserverVFS

GATHER = 0.02  # seconds between two readings in a burst, which is read in few large pieces
PAUSE = 0.1  # seconds without a reading after which a burst is over
FEW = 8  # readings in a row that no burst makes: what they tell of is not to be heard later for the sake of one
POLL = 5.0  # seconds between two looks, where changes can only be polled for

Changed = Callable[[], None]
"""Called in a thread of its own when something that matters changed."""


class Ears(Protocol):
    """Hears of changes in the places it was told last."""

    def watch(self, places: Places) -> Armed:
        """Watch these places and no others."""
        ...

    @property
    def works(self) -> bool:
        """Whether every thread that should hear lives."""
        ...

    def close(self) -> None:
        """Hear nothing any more."""
        ...


class OverflowEvent(FileSystemEvent):
    """The kernel's queue was full, and changes were lost."""

    event_type = "overflow"


class InotifyEmitter(EventEmitter):
    """Emits one event for each directory in which something that matters changed since the last reading."""

    def __init__(
        self,
        event_queue: EventQueue,
        watch: ObservedWatch,
        *,
        timeout: float = 1.0,
        event_filter: list[type[FileSystemEvent]] | None = None,
    ) -> None:
        """Open the descriptor for all places. Raises OSError."""
        super().__init__(event_queue, watch, timeout=timeout, event_filter=event_filter)
        self.inotify = Inotify()
        self._last = 0.0
        self._row = 0

    def queue_events(self, timeout: float) -> None:  # noqa: ARG002 -- waits for as long as nothing changes
        """Wait for changes and tell of them."""
        directories, lost = self.inotify.read()
        if lost:
            self.queue_event(OverflowEvent(""))
        for directory in directories:
            self.queue_event(DirModifiedEvent(directory))
        now = time.monotonic()
        self._row = self._row + 1 if now - self._last < PAUSE else 0
        self._last = now
        if self._row >= FEW:
            self.stopped_event.wait(GATHER)

    def on_thread_stop(self) -> None:
        """Let the thread end."""
        self.inotify.wake()


class _Handler(FileSystemEventHandler):
    def __init__(self, changed: Changed) -> None:
        self._changed = changed

    def dispatch(self, _event: FileSystemEvent) -> None:
        self._changed()


class InotifyEars:
    """Hears by inotify: one descriptor and one emitter for all places."""

    def __init__(self, changed: Changed) -> None:
        """Begin to hear. Raises OSError where inotify is not to be had."""
        self._observer = BaseObserver(InotifyEmitter)
        self._observer.schedule(_Handler(changed), "/")
        (emitter,) = self._observer.emitters
        assert isinstance(emitter, InotifyEmitter)  # noqa: S101 -- tells the type checker which it is
        self._emitter = emitter
        self._observer.start()

    def watch(self, places: Places) -> Armed:
        """Watch these places and no others."""
        return self._emitter.inotify.watch(places)

    @property
    def works(self) -> bool:
        """Whether both threads live."""
        return self._observer.is_alive() and self._emitter.is_alive()

    def close(self) -> None:
        """End both threads."""
        emitter = self._emitter
        self._observer.stop()
        self._observer.join()
        emitter.join()
        emitter.inotify.close()


class _Names(FileSystemEventHandler):
    """Tells of changes of the names that matter in one directory."""

    def __init__(self, directory: str, names: frozenset[str] | None, changed: Changed) -> None:
        self.directory = directory
        self.names = names
        self._changed = changed

    def dispatch(self, event: FileSystemEvent) -> None:
        paths = {os.fsdecode(path) for path in (event.src_path, event.dest_path) if path}
        if self.directory in paths and event.event_type == "deleted":
            self._changed()
            return
        names = {os.path.basename(path) for path in paths if os.path.dirname(path) == self.directory}
        if names and (self.names is None or names & self.names):
            self._changed()


def _status(path: str) -> os.stat_result:
    """What is compared: the time that any change sets stands for that of the contents, which alone watchdog asks for.

    Before watchdog 7 nothing else would tell of another mode, and no version tells of another owner.
    """
    status = os.stat(path)
    return os.stat_result(tuple(status)[:10], {"st_mtime": status.st_ctime})


class PollingEars:
    """Looks every few seconds, with a thread for each directory: for where the kernel or a limit refuses inotify."""

    def __init__(self, changed: Changed, every: float = POLL) -> None:
        """Begin to look, every so many seconds."""
        from watchdog.observers.polling import PollingObserverVFS

        self._changed = changed
        self._observer: PollingObserverVFS = PollingObserverVFS(_status, os.scandir, polling_interval=every)
        self._observer.start()
        self._watches: dict[str, tuple[ObservedWatch, _Names]] = {}
        self._deaf: frozenset[str] = frozenset()

    def watch(self, places: Places) -> Armed:
        """Watch these places and no others."""
        alive = {emitter.watch for emitter in self._observer.emitters if emitter.is_alive()}
        for directory, (watch, _) in list(self._watches.items()):
            if directory not in places or watch not in alive:
                self._observer.unschedule(watch)
                del self._watches[directory]
        fresh, deaf = False, dict[str, str]()
        for directory, names in places.items():
            if directory in self._watches:
                handler = self._watches[directory][1]
                fresh = fresh or not (handler.names is None or (names is not None and names <= handler.names))
                handler.names = names
                continue
            handler = _Names(directory, names, self._changed)
            try:
                self._watches[directory] = self._observer.schedule(handler, directory), handler
            except OSError as error:
                deaf[directory] = (error.strerror or str(error)).lower()
                continue
            fresh = True
        fresh = fresh or not self._deaf.issuperset(deaf)
        self._deaf = frozenset(deaf)
        return Armed(fresh=fresh, deaf=deaf)

    @property
    def works(self) -> bool:
        """Whether the thread that tells lives; one that looks may have ended with its directory."""
        return self._observer.is_alive()

    def close(self) -> None:
        """End all threads."""
        self._observer.stop()
        self._observer.join()


def ears(changed: Changed) -> tuple[Ears, str | None]:
    """What hears best here, and why it is not inotify, if it is not."""
    try:
        return InotifyEars(changed), None
    except OSError as error:
        return PollingEars(changed), reason(error)
