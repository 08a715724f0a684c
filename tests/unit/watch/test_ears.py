"""Changes of real trees are heard of; what does not matter is not. Nothing here asserts on how quick that is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from watchdog.events import (
    DirDeletedEvent,
    DirModifiedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
)

from chrootsync.watch import ears as hearing
from chrootsync.watch.ears import Ears, InotifyEars, OverflowEvent, PollingEars, ears
from chrootsync.watch.places import Places, places, read_link

DEADLINE = 30.0

Change = Callable[[Path], object]


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self._rung = threading.Semaphore(0)

    def ring(self) -> None:
        self._rung.release()

    def wait(self) -> None:
        """Wait until it is rung, and forget what else was heard."""
        assert self._rung.acquire(timeout=DEADLINE), "nothing was heard"
        self.rung()

    def rung(self) -> bool:
        """Whether it was rung since."""
        heard = False
        while self._rung.acquire(blocking=False):
            heard = True
        return heard


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def inotify(bell: Bell) -> Iterator[InotifyEars]:
    with contextlib.closing(InotifyEars(bell.ring)) as opened:
        yield opened


@pytest.fixture
def polling(bell: Bell) -> Iterator[PollingEars]:
    with contextlib.closing(PollingEars(bell.ring, every=0.05)) as opened:
        yield opened


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a file that matters, one that does not, and a link on the way to another."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "services").write_text("old")
    (tmp_path / "etc" / "other").write_text("old")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stub").write_text("old")
    (tmp_path / "etc" / "resolv.conf").symlink_to("../run/stub")
    return tmp_path


def wanted(place: Path, *listed: str) -> Places:
    """What to watch of a place, and nothing above it."""
    paths = [str(place / "etc" / name) for name in ("services", "resolv.conf", "missing/deep")]
    whole = places(paths, [str(place / name) for name in listed], read_link)
    return {directory: names for directory, names in whole.items() if directory.startswith(str(place))}


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """The directories that inotify tells of, in their order."""
    directories: list[str] = []

    def dispatch(handler: hearing._Handler, event: FileSystemEvent) -> None:
        directories.append(os.fsdecode(event.src_path))
        handler._changed()

    with mock.patch.object(hearing._Handler, "dispatch", dispatch):
        yield directories


def last_word(ears: Ears, bell: Bell, place: Path, watched: Places) -> str:
    """Make a change that is heard of after all that were made before; gives the directory that it is in."""
    last = place / "last"
    last.mkdir()
    ears.watch({**watched, str(last): None})
    (last / "x").touch()
    bell.wait()
    return str(last)


def replace(path: Path) -> None:
    new = path.with_name(".new")
    new.write_text("new")
    new.rename(path)


def relink(path: Path) -> None:
    new = path.with_name(".new")
    new.symlink_to("elsewhere")
    new.rename(path)


def again(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


CHANGES: dict[str, Change] = {
    "rewritten in place": lambda place: (place / "etc" / "services").write_text("new"),
    "replaced by a rename": lambda place: replace(place / "etc" / "services"),
    "removed": lambda place: (place / "etc" / "services").unlink(),
    "another mode": lambda place: (place / "etc" / "services").chmod(0o600),
    "another owner": lambda place: os.chown(place / "etc" / "services", -1, os.getegid()),
    "moved away": lambda place: (place / "etc" / "services").rename(place / "etc" / "away"),
    "the link replaced": lambda place: relink(place / "etc" / "resolv.conf"),
    "what the link leads to, rewritten": lambda place: (place / "run" / "stub").write_text("new"),
    "what the link leads to, replaced": lambda place: replace(place / "run" / "stub"),
    "its directory made again": lambda place: again(place / "run"),
    "its directory moved": lambda place: (place / "run").rename(place / "ran"),
    "what was missing comes": lambda place: (place / "etc" / "missing").mkdir(),
    "its own directory loses rights": lambda place: (place / "run").chmod(0o700),
}  # fmt: skip

NO_CHANGES: dict[str, Change] = {
    "another file": lambda place: (place / "etc" / "other").write_text("new"),
    "a new file": lambda place: (place / "etc" / "newer").touch(),
    "reading": lambda place: [(place / "etc" / "services").read_text(), os.listdir(place / "run")],
    "a name that only begins alike": lambda place: (place / "etc" / "services-").touch(),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_inotify_hears_of_every_change_that_matters(inotify: Ears, bell: Bell, place: Path, change: Change) -> None:
    assert inotify.watch(wanted(place)).deaf == {}
    change(place)
    bell.wait()


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
def test_inotify_does_not_hear_of_others(
    heard: list[str], inotify: Ears, bell: Bell, place: Path, change: Change
) -> None:
    inotify.watch(wanted(place))
    change(place)
    last = last_word(inotify, bell, place, wanted(place))
    assert set(heard) == {last}


def test_a_listed_directory_is_heard_of_whatever_changes_in_it(inotify: Ears, bell: Bell, place: Path) -> None:
    inotify.watch(wanted(place, "etc"))
    (place / "etc" / "newer").touch()
    bell.wait()


def test_a_directory_made_again_is_watched_once_the_places_are_given_again(
    inotify: Ears, bell: Bell, place: Path
) -> None:
    assert inotify.watch(wanted(place)).fresh
    again(place / "run")
    bell.wait()
    assert inotify.watch(wanted(place)).fresh
    settle = place / "run" / "stub"
    bell.rung()
    settle.write_text("back")
    bell.wait()


def test_only_what_was_not_watched_before_is_fresh(inotify: Ears, place: Path) -> None:
    assert inotify.watch(wanted(place)).fresh
    assert not inotify.watch(wanted(place)).fresh
    fewer = wanted(place)
    del fewer[str(place / "run")]
    assert not inotify.watch(fewer).fresh
    assert inotify.watch(wanted(place)).fresh
    assert inotify.watch(wanted(place, "etc")).fresh
    assert not inotify.watch(wanted(place)).fresh


def test_names_that_did_not_matter_before_are_fresh(inotify: Ears, place: Path) -> None:
    inotify.watch({str(place / "etc"): frozenset({"services"})})
    assert inotify.watch({str(place / "etc"): frozenset({"services", "other"})}).fresh


def test_what_is_not_watched_any_more_is_not_heard_of(heard: list[str], inotify: Ears, bell: Bell, place: Path) -> None:
    inotify.watch(wanted(place))
    inotify.watch({})
    (place / "etc" / "services").write_text("new")
    last = last_word(inotify, bell, place, {})
    assert set(heard) == {last}


def test_a_directory_by_two_paths_is_heard_of_by_the_names_of_both(inotify: Ears, bell: Bell, place: Path) -> None:
    one, other = str(place / "etc"), f"{place}/run/../etc"
    inotify.watch({one: frozenset({"services"}), other: frozenset({"other"})})
    (place / "etc" / "other").write_text("new")
    bell.wait()
    (place / "etc" / "services").write_text("new")
    bell.wait()


def test_what_vanished_meanwhile_is_no_trouble(inotify: Ears, bell: Bell, place: Path) -> None:
    armed = inotify.watch({str(place / "gone"): None, str(place / "etc" / "services"): None, **wanted(place)})
    assert armed.deaf == {}
    (place / "etc" / "services").write_text("new")
    bell.wait()


def test_a_link_in_place_of_a_directory_is_not_followed(
    heard: list[str], inotify: Ears, bell: Bell, place: Path
) -> None:
    (place / "link").symlink_to("run")
    assert inotify.watch({str(place / "link"): None}).deaf == {}
    (place / "run" / "x").touch()
    last = last_word(inotify, bell, place, {})
    assert set(heard) == {last}


def test_where_there_may_be_no_more_watches_is_told(inotify: InotifyEars, place: Path) -> None:
    with mock.patch.object(inotify._emitter.inotify, "_add", side_effect=full):
        armed = inotify.watch({str(place): None})
        assert armed.fresh
        reason = "there are too many watches already; raise fs.inotify.max_user_watches (sysctl)"
        assert armed.deaf[str(place)] == reason
        assert not inotify.watch({str(place): None}).fresh


def full(*_: object) -> int:
    import ctypes

    ctypes.set_errno(errno.ENOSPC)
    return -1


def test_undecodable_names_matter_too(inotify: Ears, bell: Bell, place: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    inotify.watch({str(place): frozenset({name})})
    (place / name).touch()
    bell.wait()


def test_a_burst_is_gathered(heard: list[str], inotify: Ears, bell: Bell, place: Path) -> None:
    inotify.watch({str(place / "etc"): None})
    for number in range(2000):
        (place / "etc" / f"f{number}").touch()
    last_word(inotify, bell, place, {})
    assert 0 < heard.count(str(place / "etc")) < 500


def test_a_few_changes_in_a_row_are_heard_of_at_once(
    inotify: Ears, bell: Bell, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearing, "GATHER", 2 * DEADLINE)
    inotify.watch({str(place / "etc"): frozenset({"services"})})
    for name in ("other", "other", "services", "other", "services"):
        os.utime(place / "etc" / name)
        if name == "services":
            bell.wait()


def test_an_overflow_is_heard_of(bell: Bell, place: Path) -> None:
    """More events than the queue takes while nobody reads; one that was lost may have been the one that matters."""
    events: list[object] = []

    class Noting(hearing._Handler):
        def dispatch(self, event: FileSystemEvent) -> None:
            events.append(event)
            bell.ring()

    reading = threading.Event()

    def queue_events(emitter: hearing.InotifyEmitter, _timeout: float) -> None:
        assert reading.wait(DEADLINE)
        original(emitter, _timeout)

    original = hearing.InotifyEmitter.queue_events
    with (
        mock.patch.object(hearing, "_Handler", Noting),
        mock.patch.object(hearing.InotifyEmitter, "queue_events", queue_events),
        contextlib.closing(InotifyEars(bell.ring)) as opened,
    ):
        opened.watch({str(place / "etc"): frozenset({"services"})})
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        one, other = place / "etc" / "a", place / "etc" / "b"
        one.touch()
        for _ in range(limit // 2 + 2):  # two events each
            one.rename(other)
            one, other = other, one
        reading.set()
        bell.wait()
    assert any(isinstance(event, OverflowEvent) for event in events)


def test_both_threads_live_until_it_is_closed(bell: Bell) -> None:
    before = threading.active_count()
    opened = InotifyEars(bell.ring)
    living = [(opened.works, threading.active_count() - before)]
    opened.close()
    living.append((opened.works, threading.active_count() - before))
    assert living == [(True, 2), (False, 0)]


def test_where_there_is_no_inotify_changes_are_polled_for(bell: Bell) -> None:
    with mock.patch.object(hearing, "Inotify", side_effect=OSError(errno.EMFILE, "Too many open files")):
        opened, reason = ears(bell.ring)
    with contextlib.closing(opened):
        assert isinstance(opened, PollingEars)
        assert reason == "there are too many instances of it already; raise fs.inotify.max_user_instances (sysctl)"
    opened, reason = ears(bell.ring)
    with contextlib.closing(opened):
        assert isinstance(opened, InotifyEars)
        assert reason is None


@pytest.mark.parametrize("change", [name for name in CHANGES if name != "its own directory loses rights"])
def test_polling_hears_of_every_change_that_matters(polling: Ears, bell: Bell, place: Path, change: str) -> None:
    assert polling.watch(wanted(place)).fresh
    CHANGES[change](place)
    bell.wait()


def test_polling_tells_what_matters_from_what_does_not() -> None:
    bell = Bell()
    names = hearing._Names("/etc", frozenset({"services"}), bell.ring)

    def matters(event: FileSystemEvent) -> bool:
        names.dispatch(event)
        return bell.rung()

    assert matters(FileModifiedEvent("/etc/services"))
    assert matters(FileModifiedEvent(b"/etc/services"))
    assert matters(FileMovedEvent("/etc/new", "/etc/services"))
    assert matters(FileMovedEvent("/etc/services", "/etc/old"))
    assert matters(DirDeletedEvent("/etc"))
    assert not matters(FileModifiedEvent("/etc/other"))
    assert not matters(DirModifiedEvent("/etc"))
    names.names = None
    assert matters(FileModifiedEvent("/etc/other"))
    assert not matters(DirModifiedEvent("/etc"))


def test_polling_takes_places_anew(polling: Ears, bell: Bell, place: Path) -> None:
    polling.watch(wanted(place))
    assert not polling.watch(wanted(place)).fresh
    assert polling.watch(wanted(place, "etc")).fresh
    (place / "etc" / "newer").touch()
    bell.wait()
    again(place / "run")
    bell.wait()
    assert polling.works
    assert polling.watch({str(place / "gone"): None}).deaf.keys() == {str(place / "gone")}
    assert not polling.watch({str(place / "gone"): None}).fresh
