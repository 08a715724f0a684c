"""The watcher's story, told with a clock of its own, ears and passes that do what a test says."""

from __future__ import annotations

import errno
import itertools
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from chrootsync.model import Code
from chrootsync.watch import loop
from chrootsync.watch.inotify import Armed
from chrootsync.watch.loop import Watcher, World
from chrootsync.watch.notify import Notifier
from chrootsync.watch.passes import Told, written
from chrootsync.watch.places import Places

VERSION = "1.0"
FIRST: Places = {"/etc": frozenset({"resolv.conf"})}
PLACES: Places = {"/etc": frozenset({"resolv.conf", "services"}), "/run": frozenset({"systemd"})}


def told(**changes: Any) -> Told:
    usual: dict[str, Any] = {
        "status": "3 instances in sync",
        "places": PLACES,
        "settle": 0.5,
        "maximum": 10.0,
        "interval": 3600.0,
    }
    return Told(**{**usual, **changes})


class FakePass:
    """A pass that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = False
        self.word = b""
        self.closed = False
        self.signals: list[int] = []
        self.ended: int | None = None
        self.told = b""
        self._reading, self._writing = os.pipe()

    def fileno(self) -> int:
        return self._reading

    def begin(self, word: bytes) -> None:
        assert not self.begun
        self.begun = True
        self.word = word

    def code(self) -> int | None:
        return self.ended

    def report(self) -> bytes:
        return self.told

    def send(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        os.close(self._reading)
        os.close(self._writing)

    def end(self, code: int = 0, report: Told | None = None) -> None:
        """End, with a report or without."""
        self.ended = code
        self.told = b"" if report is None else written(report)
        os.write(self._writing, b"x")


class FakeEars:
    def __init__(self) -> None:
        self.places: list[Places] = []
        self.deaf: dict[str, str] = {}
        self.works = True
        self.closed = False

    def watch(self, places: Places) -> Armed:
        fresh = not self.places or self.places[-1] != places
        self.places.append(places)
        return Armed(fresh=fresh, deaf=dict(self.deaf))

    def close(self) -> None:
        self.closed = True


class FakeNotifier(Notifier):
    def __init__(self) -> None:
        super().__init__({})
        self.said: list[dict[str, str | int]] = []

    def say(self, **fields: str | int) -> None:
        self.said.append(fields)

    def status(self) -> str:
        return [str(fields["STATUS"]) for fields in self.said if "STATUS" in fields][-1]


@dataclass
class Stage:
    """A watcher that is moved by hand: ``turn`` moves the clock, and lets it do what is due."""

    now: float = 1000.0
    passes: list[FakePass] = field(default_factory=list)
    ears: FakeEars = field(default_factory=FakeEars)
    log: list[tuple[int, str]] = field(default_factory=list)
    notifier: FakeNotifier = field(default_factory=FakeNotifier)
    refused: OSError | None = None
    poor: str | None = None
    waited: float = 0.0

    def __post_init__(self) -> None:
        self.watcher = Watcher(
            World(
                version=VERSION,
                start=self._start,
                listen=lambda _changed: (self.ears, self.poor),
                tell=lambda level, sentence: self.log.append((level, sentence)),
                notifier=self.notifier,
                clock=lambda: self.now,
                spread=lambda: 1.0,
                first=lambda: FIRST,
            )
        )
        self.watcher._wait = self._wait  # type: ignore[method-assign]

    def _start(self) -> FakePass:
        if self.refused is not None:
            raise self.refused
        self.passes.append(FakePass())
        return self.passes[-1]

    def _wait(self, seconds: float) -> None:
        self.waited = seconds

    def begin(self) -> None:
        """What ``run`` does before its first turn."""
        self.watcher._begin()
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.watcher._turn(self.now)

    def change(self) -> None:
        """Something that is watched changes."""
        self.watcher._quiet.noticed(self.now)
        self.turn()

    def end(self, code: int = 0, report: Told | None = None) -> None:
        """The pass under way ends."""
        self.passes[-1].end(code, report)
        self.turn()

    def settle(self) -> None:
        """Come to where nothing is to be done before the next full check."""
        self.begin()
        self.end(0, told())
        self.turn(0.5)
        self.end(0, told())
        assert self.idle()

    def begun(self, number: int = -1) -> bool:
        """Whether a pass was told to begin."""
        return self.passes[number].begun

    def idle(self) -> bool:
        return self.watcher._pass is None

    def close(self) -> None:
        self.watcher._end()

    def sentences(self) -> list[str]:
        return [sentence for _, sentence in self.log]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(loop, "LAST", 0.01)
    made = Stage()
    yield made
    with suppress(OSError):
        made.close()


def test_exit_statuses_are_those_of_the_model() -> None:
    assert (loop.OK, loop.BUG) == (Code.OK, Code.BUG)


def test_at_the_start_it_watches_says_so_and_checks(stage: Stage) -> None:
    stage.begin()
    assert stage.ears.places == [FIRST]
    assert stage.notifier.said[0]["READY"] == 1
    assert [one.begun for one in stage.passes] == [True]


def test_what_a_pass_found_is_watched_and_looked_at_once_more(stage: Stage) -> None:
    stage.begin()
    stage.end(0, told())
    assert stage.ears.places[-1] == PLACES
    assert [one.begun for one in stage.passes] == [True, False]
    stage.turn(0.5)
    assert stage.begun(1)
    stage.end(0, told())
    assert stage.idle()
    assert len(stage.passes) == 2
    assert stage.notifier.status() == "3 instances in sync"


def test_nothing_wakes_it_before_the_next_full_check(stage: Stage) -> None:
    stage.settle()
    assert stage.waited == pytest.approx(3600, abs=1)
    stage.turn(3599)
    assert stage.idle()
    stage.turn(1)
    assert stage.begun()
    assert len(stage.passes) == 3


def test_a_pass_gets_ready_while_changes_settle_and_begins_then(stage: Stage) -> None:
    stage.settle()
    stage.change()
    assert [one.begun for one in stage.passes[2:]] == [False]
    stage.turn(0.4)
    stage.change()
    stage.turn(0.4)
    assert not stage.begun(2)
    stage.turn(0.1)
    assert stage.begun(2)
    assert len(stage.passes) == 3


def test_changes_that_never_end_are_looked_at_all_the_same(stage: Stage) -> None:
    stage.settle()
    for _ in range(49):
        stage.change()
        stage.turn(0.2)
    assert not stage.begun(2)
    stage.change()
    stage.turn(0.2)
    assert stage.begun(2)


def test_a_change_during_a_pass_leads_to_another(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.change()
    stage.turn(5)
    assert len(stage.passes) == 3
    stage.end(0, told())
    stage.turn()
    assert [one.begun for one in stage.passes] == [True] * 4
    stage.end(0, told())
    assert stage.idle()


def test_settings_of_the_configuration_are_taken_in(stage: Stage) -> None:
    stage.begin()
    stage.end(0, told(settle=3.0, maximum=4.0, interval=60.0))
    stage.turn(2.9)
    assert not stage.begun(1)
    stage.turn(0.2)
    assert stage.begun(1)
    stage.end(0, told(settle=3.0, maximum=4.0, interval=60.0))
    assert stage.waited == pytest.approx(60, abs=4)


def test_a_reload_that_is_pending_is_not_lost(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.end(4, told(reload_in=42.0))
    assert stage.idle()
    stage.turn(42)
    assert stage.idle()
    stage.turn(loop.SLACK)
    assert stage.begun()
    stage.end(0, told())
    stage.turn(600)
    assert stage.idle()


def test_a_pass_that_asks_for_another_gets_it_later_and_later(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    for delay in (5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600):
        stage.end(3, told(retry=True))
        stage.turn(delay - 0.1)
        assert stage.idle()
        stage.turn(0.2)
        assert stage.begun(), delay
    stage.end(0, told())
    stage.change()
    stage.turn(0.5)
    stage.end(3, told(retry=True))
    stage.turn(5)
    assert stage.begun()


def test_a_pass_that_crashes_is_told_once_and_tried_again(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.end(-signal.SIGSEGV)
    assert stage.log == [
        (loop.ERROR, "a pass was ended by signal 11; trying again every now and then, first in 5 seconds")
    ]
    assert stage.notifier.status().startswith("3 instances in sync; a pass was ended by signal 11")
    stage.turn(5)
    stage.end(-signal.SIGSEGV)
    assert len(stage.log) == 1
    stage.turn(10)
    stage.end(0, told())
    assert stage.log[1:] == [(loop.NOTICE, "passes work again as they should")]
    assert stage.notifier.status() == "3 instances in sync"


def test_a_pass_that_cannot_get_ready_does_not_spin(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.end(1)
    assert stage.idle()
    assert stage.waited == pytest.approx(5)
    assert stage.sentences()[0].startswith("a pass ended with status 1;")


def test_changes_do_not_hurry_passes_that_cannot_get_ready(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.end(1)
    for _ in range(10):
        stage.change()
        stage.turn(0.1)
    assert len(stage.passes) == 3
    stage.turn(0.5)
    assert [one.begun for one in stage.passes[3:]] == [True]
    stage.end(0, told())
    stage.change()
    assert [one.begun for one in stage.passes[4:]] == [False]


def test_a_pass_that_asks_for_another_does_not_keep_the_next_from_getting_ready(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.end(3, told(retry=True))
    stage.change()
    assert [one.begun for one in stage.passes[3:]] == [False]


def test_a_reload_that_is_due_does_not_hurry_them_either(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.end(4, told(reload_in=42.0))
    stage.refused = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    stage.turn(43)
    assert stage.waited == pytest.approx(5)
    stage.refused = None
    stage.turn(5)
    assert stage.begun()


def test_a_full_check_that_cannot_be_started_is_tried_later_and_later(stage: Stage) -> None:
    stage.settle()
    stage.refused = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    stage.turn(3600)
    for delay in (5, 10, 20, 40):
        assert stage.waited == pytest.approx(delay)
        stage.turn(delay)


def test_a_pass_that_cannot_be_started_does_not_spin_either(stage: Stage) -> None:
    stage.settle()
    stage.refused = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    stage.change()
    assert stage.waited == pytest.approx(5)
    assert stage.sentences()[0].startswith("a pass cannot be started: resource temporarily unavailable;")
    stage.refused = None
    stage.turn(5)
    assert stage.begun()


def test_a_failure_at_the_very_start_is_survived(stage: Stage) -> None:
    stage.refused = OSError(errno.ENOENT, "No such file or directory")
    stage.begin()
    assert stage.waited == pytest.approx(5)
    stage.refused = None
    stage.turn(5)
    assert stage.begun(0)


def test_a_pass_that_hangs_is_ended(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.turn(599)
    assert stage.passes[-1].signals == []
    stage.turn(1)
    assert stage.passes[-1].signals == [signal.SIGTERM]
    stage.turn(loop.GRACE)
    assert stage.passes[-1].signals == [signal.SIGTERM, signal.SIGKILL]
    stage.end(-signal.SIGKILL)
    assert stage.sentences()[0].startswith("a pass did not end within 600 seconds;")


def test_a_report_that_makes_no_sense_is_none(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.passes[-1].told = b'{"status": "fine"}'
    stage.passes[-1].ended = 0
    stage.turn()
    assert stage.sentences()[0].startswith("a pass ended with status 0;")


def test_problems_are_told_once_and_stay_in_the_status(stage: Stage) -> None:
    stage.settle()
    broken = told(problems=("working with the last good rules", "rules.d/x.toml: is not TOML"))
    for _ in range(3):
        stage.change()
        stage.turn(0.5)
        stage.end(0, broken)
    sentence = "working with the last good rules; rules.d/x.toml: is not TOML"
    assert stage.log == [(loop.ERROR, sentence)]
    assert stage.notifier.status() == f"3 instances in sync; {sentence}"


def test_where_it_is_deaf_is_told_once(stage: Stage) -> None:
    stage.ears.deaf = {"/etc": "there are too many watches already"}
    stage.settle()
    reason = "there are too many watches already"
    assert stage.sentences() == [f"changes in /etc are seen by a check every minute only: {reason}"]


def test_many_places_where_it_is_deaf_are_one_sentence(stage: Stage) -> None:
    stage.ears.deaf = {f"/{name}": "no" for name in "abcde"} | {"/f": "never"}
    stage.settle()
    assert stage.sentences() == [
        "changes in /f are seen by a check every minute only: never",
        "changes in /a, /b, /c and 2 more are seen by a check every minute only: no",
    ]


def test_where_it_is_deaf_it_looks_every_minute_until_it_hears(stage: Stage) -> None:
    stage.ears.deaf = {"/etc": "there are too many watches already"}
    stage.settle()
    for _ in range(2):
        stage.turn(59)
        assert stage.idle()
        stage.turn(1)
        assert stage.begun()
        stage.end(0, told())
    stage.ears.deaf = {}
    stage.turn(60)
    stage.end(0, told())
    stage.turn(3599)
    assert stage.idle()


def test_what_a_pass_logged_is_told_to_the_next(stage: Stage) -> None:
    stage.begin()
    assert stage.passes[0].word == b""
    stage.end(0, told(logged="c0ffee"))
    stage.turn(0.5)
    assert stage.passes[1].word.split() == [b"c0ffee", b"1000.000000"]


def test_a_pass_is_told_when_the_last_change_was_heard_of(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.25)
    stage.change()
    stage.turn(0.5)
    assert stage.passes[-1].word == b" %.6f" % (stage.now - 0.5)


def test_a_pass_with_other_reasons_than_changes_is_to_look_at_everything_anew(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.watcher.reload()
    stage.turn(0.1)
    assert stage.passes[-1].word == b""
    stage.end(0, told(reload_in=0.3))
    stage.change()
    stage.turn(0.5)
    assert stage.passes[-1].word == b""


def test_another_version_takes_its_place(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.change()  # which the next version will see
    stage.waited = -1.0
    stage.end(0, told(version="1.1"))
    assert stage.watcher.outdated
    assert (len(stage.passes), stage.waited) == (3, -1.0)
    assert stage.sentences() == ["chrootsync 1.1 was installed meanwhile; beginning anew as that one"]
    stage.close()
    assert {"STOPPING": 1} not in stage.notifier.said


def test_the_same_version_does_not_and_neither_does_another_once_it_is_to_stop(stage: Stage) -> None:
    stage.begin()
    stage.end(0, told(version=VERSION))
    assert not stage.watcher.outdated
    stage.turn(0.5)
    stage.watcher.stop()
    stage.end(0, told(version="1.1"))
    assert not stage.watcher.outdated


def test_where_changes_are_polled_for_is_told(stage: Stage) -> None:
    stage.poor = "too many open files"
    stage.begin()
    assert stage.sentences() == ["there is no inotify (too many open files): looking every few seconds instead"]


def test_a_reload_of_the_service_is_a_pass(stage: Stage) -> None:
    stage.settle()
    stage.notifier.said.clear()
    stage.watcher.reload()
    stage.turn()
    assert stage.notifier.said == [{"RELOADING": 1, "MONOTONIC_USEC": int(stage.now * 1e6)}]
    assert stage.begun()
    stage.end(0, told())
    assert stage.notifier.said[-1] == {"READY": 1}


def test_a_reload_during_a_pass_is_answered_by_the_next(stage: Stage) -> None:
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.watcher.reload()
    stage.turn()
    stage.notifier.said.clear()
    stage.end(0, told())
    assert {"READY": 1} not in stage.notifier.said
    assert stage.begun()
    stage.end(0, told())
    assert stage.notifier.said.count({"READY": 1}) == 1


def test_a_reload_is_answered_even_by_a_failure(stage: Stage) -> None:
    stage.settle()
    stage.refused = OSError(errno.ENOMEM, "Cannot allocate memory")
    stage.watcher.reload()
    stage.turn()
    assert stage.notifier.said[-1] == {"READY": 1}


def test_the_manager_is_pinged_in_time_also_during_a_pass(stage: Stage) -> None:
    stage.notifier.ping_every = 5.0
    stage.settle()
    stage.change()
    stage.turn(0.5)
    stage.notifier.said.clear()
    for _ in range(3):
        assert 0 < stage.waited <= 5
        stage.turn(stage.waited)
    assert stage.notifier.said == [{"WATCHDOG": 1}] * 3


def test_the_end_stops_a_pass_and_leaves_one_that_does_not_stop(stage: Stage) -> None:
    stage.begin()
    stage.watcher._end()
    assert stage.passes[0].signals == [signal.SIGTERM]
    assert stage.passes[0].closed
    assert stage.ears.closed
    assert {"STOPPING": 1} in stage.notifier.said


def test_it_runs_until_it_is_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    turns = itertools.count(1)

    def wait(_seconds: float) -> None:
        if next(turns) == 3:
            stage.watcher.stop()

    monkeypatch.setattr(stage.watcher, "_wait", wait)
    assert stage.watcher.run() == 0
    assert next(turns) == 4


def test_it_ends_where_a_thread_has_ended() -> None:
    stage = Stage()
    stage.ears.works = False
    assert stage.watcher.run() == Code.BUG
    said = "a thread that listens has ended, which is a bug in chrootsync; ending too"
    assert said in stage.sentences()[0]
    assert stage.ears.closed


def test_the_bell_counts_as_a_change_and_a_signal_does_not() -> None:
    stage = Stage()
    os.write(stage.watcher.bell, bytes([signal.SIGHUP]))
    Watcher._wait(stage.watcher, 30)
    due = [stage.watcher._quiet.due]
    for _ in range(70000):  # more than a pipe holds
        stage.watcher._changed()
    Watcher._wait(stage.watcher, 30)
    due.append(stage.watcher._quiet.due)
    assert due == [None, stage.now + 0.5]
    stage.begin()
    stage.close()
